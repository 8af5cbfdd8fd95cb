"""``manage.py addsshuser alice``: a user with a password from standard input, and keys and a profile when given."""

import json
import sys

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from sshlogin.models import SSHKey, SSHProfile


class Command(BaseCommand):
    help = "Creates or changes a user who may log in by SSH."

    def add_arguments(self, parser):
        parser.add_argument("username")
        parser.add_argument("--password-stdin", action="store_true", help="set the password to the first line of standard input")
        parser.add_argument("--key", action="append", default=[], help="a public key, as in ~/.ssh/id_ed25519.pub")
        parser.add_argument("--inactive", action="store_true", help="the user may not log in from now on")
        parser.add_argument("--active", action="store_true", help="the user may log in again")
        parser.add_argument("--workspace", default="")
        parser.add_argument("--template", default="")
        parser.add_argument("--limits", type=json.loads, default={}, help="a JSON object")

    def handle(self, *, username, **options):
        try:
            created = self.save(username, **options)
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        self.stdout.write(f"{'added' if created else 'changed'} {username}")

    @transaction.atomic
    def save(self, username, *, password_stdin, key, inactive, active, workspace, template, limits, **_):
        user, created = get_user_model().objects.get_or_create(username=username)
        if password_stdin:
            password = sys.stdin.readline().rstrip("\r\n")
            if not password:
                raise CommandError("no password on standard input")
            user.set_password(password)
        elif created:
            user.set_unusable_password()
        # A key or a password for somebody who was shut out does not let her in again: that has to be said.
        if inactive or active:
            user.is_active = active
        user.full_clean(exclude=["password"])
        user.save()
        for line in key:
            ssh_key = SSHKey(user=user, key=line)
            ssh_key.full_clean(validate_unique=False, validate_constraints=False)
            # She may have it already: the same line can be run twice.
            if not SSHKey.objects.filter(user=user, key=ssh_key.key).exists():
                ssh_key.save()
        if workspace or template or limits:
            profile = SSHProfile.objects.filter(user=user).first() or SSHProfile(user=user)
            profile.workspace, profile.template, profile.limits = workspace, template, limits
            profile.full_clean()
            profile.save()
        return created
