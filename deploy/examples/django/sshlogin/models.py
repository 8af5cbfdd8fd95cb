"""What a user of this site needs beside her password to log in by SSH."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models

from . import keys

label = RegexValidator(r"\A[a-z0-9][a-z0-9-]{0,31}\Z", "Small letters, digits and hyphens, at most 32 of them.")


class SSHKey(models.Model):
    """A public key that opens its user's account."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="ssh_keys")
    key = models.TextField(help_text="A line as in ~/.ssh/id_ed25519.pub.")
    comment = models.CharField(max_length=200, blank=True)
    added = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "SSH key"
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_key_once_per_user")]

    def __str__(self):
        return f"{self.comment or self.key.split()[0]} ({self.fingerprint})"

    @property
    def fingerprint(self):
        return keys.fingerprint(self.key)

    def clean(self):
        """Takes the comment out of the key, so that the stored form is the one the gateway asks about."""
        try:
            self.key, comment = keys.parse(self.key)
        except ValueError as error:
            raise ValidationError({"key": str(error)}) from None
        self.comment = self.comment or comment[:200]


class SSHProfile(models.Model):
    """Where a user lands and what she gets, when that is not the gateway's default."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="ssh_profile")
    workspace = models.CharField(
        max_length=32,
        blank=True,
        validators=[label],
        help_text="Users with the same workspace share one home and one container.",
    )
    template = models.CharField(max_length=32, blank=True, validators=[label])
    limits = models.JSONField(
        blank=True,
        default=dict,
        help_text='For example {"cpus": 2.0, "memory": "8GiB", "pids": 512, "disk": "50GiB", "inodes": 1000000, "sessions": 10, '
        '"volumes": {"data": {"disk": "2GiB"}}}.',
    )

    class Meta:
        verbose_name = "SSH profile"

    def __str__(self):
        return f"{self.user}: {self.workspace or 'a workspace of her own'}"

    def clean(self):
        if not isinstance(self.limits, dict):
            raise ValidationError({"limits": "Must be an object, {} for the template's limits."})
        if unknown := set(self.limits) - {"cpus", "memory", "pids", "disk", "inodes", "sessions", "volumes"}:
            raise ValidationError({"limits": f"Unknown: {', '.join(sorted(unknown))}."})

    def innkeeper(self):
        """The ``innkeeper`` object of an answer."""
        fields = {"workspace": self.workspace, "template": self.template, "limits": self.limits}
        return {name: value for name, value in fields.items() if value}
