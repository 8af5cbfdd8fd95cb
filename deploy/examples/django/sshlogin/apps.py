from django.apps import AppConfig


class SSHLoginConfig(AppConfig):
    """SSH logins for the users of this site."""

    name = "sshlogin"
    verbose_name = "SSH"
