"""SSH keys and profiles in the admin, beside each user and on pages of their own."""

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin

from .models import SSHKey, SSHProfile


class SSHKeyInline(admin.TabularInline):
    model = SSHKey
    extra = 0
    fields = ["key", "comment"]


class SSHProfileInline(admin.StackedInline):
    model = SSHProfile
    extra = 0


@admin.register(SSHKey)
class SSHKeyAdmin(admin.ModelAdmin):
    list_display = ["user", "comment", "fingerprint", "added"]
    search_fields = ["user__username", "comment"]
    autocomplete_fields = ["user"]


@admin.register(SSHProfile)
class SSHProfileAdmin(admin.ModelAdmin):
    list_display = ["user", "workspace", "template"]
    search_fields = ["user__username", "workspace"]
    autocomplete_fields = ["user"]


User = get_user_model()
admin.site.unregister(User)


@admin.register(User)
class UserWithSSHAdmin(UserAdmin):
    inlines = [SSHKeyInline, SSHProfileInline]
