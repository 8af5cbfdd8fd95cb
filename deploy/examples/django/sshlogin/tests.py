"""``manage.py test``: the views as the gateway sees them."""

import base64
import json

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.test import TestCase, override_settings

from .models import SSHKey, SSHProfile

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@override_settings(INNKEEPER_TOKEN="right", PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
class WebhookTest(TestCase):
    def setUp(self):
        self.alice = get_user_model().objects.create_user("alice", password="correct horse")
        SSHKey.objects.create(user=self.alice, key=KEY)

    def post(self, path, question, token="right"):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.post(f"/ssh/{path}", json.dumps(question), content_type="application/json", headers=headers)

    def asks(self, path, **question):
        response = self.post(path, {"username": "alice", "remoteAddress": "192.0.2.1:1", **question})
        self.assertEqual(response.status_code, 200)
        return response.json()

    def password(self, password, username="alice"):
        return self.asks("password", username=username, passwordBase64=base64.b64encode(password).decode())

    def pubkey(self, key, username="alice"):
        return self.asks("pubkey", username=username, publicKey=key)

    def test_a_password(self):
        self.assertEqual(self.password(b"correct horse"), {"success": True, "authenticatedUsername": "alice"})
        self.alice.refresh_from_db()
        self.assertIsNotNone(self.alice.last_login)
        for wrong in [b"", b"wrong", b"\xff\xfe", b"correct horse\n"]:
            self.assertEqual(self.password(wrong), {"success": False})
        for nobody in ["bob", "", "\0", "Alice", "x" * 10_000]:
            self.assertEqual(self.password(b"correct horse", nobody), {"success": False})

    def test_a_key(self):
        self.assertTrue(self.pubkey(KEY)["success"])
        self.assertTrue(self.pubkey(KEY + " comment")["success"])
        for key in [OTHER, KEY.split()[0], KEY.split()[1], "", "\0"]:
            self.assertEqual(self.pubkey(key), {"success": False})
        get_user_model().objects.create_user("bob")
        self.assertEqual(self.pubkey(KEY, "bob"), {"success": False})
        self.alice.refresh_from_db()
        self.assertIsNone(self.alice.last_login, "an offered key is no login")

    def test_a_user_who_is_not_active(self):
        self.alice.is_active = False
        self.alice.save()
        self.assertEqual(self.password(b"correct horse"), {"success": False})
        self.assertEqual(self.pubkey(KEY), {"success": False})

    def test_a_profile(self):
        SSHProfile.objects.create(user=self.alice, workspace="acme", limits={"cpus": 1.5})
        self.assertEqual(self.pubkey(KEY)["innkeeper"], {"workspace": "acme", "limits": {"cpus": 1.5}})

    def test_only_the_gateway_may_ask(self):
        question = {"username": "alice", "publicKey": KEY}
        for token in ["wrong", "", None, "right ", "ríght"]:
            with self.assertLogs("sshlogin"):
                self.assertEqual(self.post("pubkey", question, token).status_code, 401)
        self.assertEqual(self.client.get("/ssh/pubkey").status_code, 405)

    def test_what_is_no_question(self):
        for question in [[], {}, None, 1, {"username": 1, "publicKey": KEY}, {"username": "alice"}, {"username": "alice", "publicKey": 1}]:
            with self.assertLogs("sshlogin"):
                self.assertEqual(self.post("pubkey", question).status_code, 400)
        with self.assertLogs("sshlogin"):
            self.assertEqual(self.post("password", {"username": "alice", "passwordBase64": "%%"}).status_code, 400)

    def test_keys_are_stored_without_their_comment(self):
        key = SSHKey(user=self.alice, key=f" {OTHER}  my laptop\n")
        key.full_clean()
        self.assertEqual((key.key, key.comment), (OTHER, "my laptop"))
        for wrong in ["", "hello", OTHER[:-8], "-----BEGIN OPENSSH PRIVATE KEY-----", f"{KEY} a\n{OTHER} b", f"ssh-rsa {OTHER.split()[1]}"]:
            with self.assertRaises(ValidationError):
                SSHKey(user=self.alice, key=wrong).full_clean()

    def test_the_admin_shows_keys_beside_the_user(self):
        boss = get_user_model().objects.create_superuser("boss", password="x")
        self.client.force_login(boss)
        for page in [f"auth/user/{self.alice.pk}/change/", "sshlogin/sshkey/", "sshlogin/sshprofile/"]:
            self.assertEqual(self.client.get(f"/admin/{page}").status_code, 200)
