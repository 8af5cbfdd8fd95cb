"""The two addresses that the gateway asks, below its ``auth.webhook.url``."""

from django.urls import path

from . import views

urlpatterns = [
    path("password", views.password),
    path("pubkey", views.pubkey),
]
