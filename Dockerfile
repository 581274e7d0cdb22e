# An image with what segment, batch, serve and watch need: docs/how-to/docker.md. No torch.
FROM debian:12-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python3 -m venv /opt/groundglass \
    && /opt/groundglass/bin/pip install --no-cache-dir '.[serve]'

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 groundglass \
    && install -d -m 700 -o groundglass /scans /watch
COPY --from=build /opt/groundglass /opt/groundglass
USER groundglass
WORKDIR /home/groundglass
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["/opt/groundglass/bin/groundglass"]
CMD ["--help"]
