"""groundglass finds COVID-19 lesions in chest CT."""
