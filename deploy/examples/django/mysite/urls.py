"""The admin for people, ``/ssh/`` for the gateway."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("ssh/", include("sshlogin.urls")),
]
