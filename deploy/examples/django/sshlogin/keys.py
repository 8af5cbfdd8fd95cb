"""Public keys in the form of an ``authorized_keys`` line."""

import base64
import binascii
import hashlib
import struct

ALGORITHMS = {
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
}


def parse(line):
    """``algorithm base64 comment`` as ``("algorithm base64", "comment")``; ValueError says what is wrong with it."""
    if "PRIVATE KEY" in line:
        raise ValueError("This is a private key. Paste the public one, from the file whose name ends in .pub.")
    algorithm, _, rest = line.strip().partition(" ")
    text, _, comment = rest.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise ValueError("Not a public key of a supported type. Paste the line from ~/.ssh/id_ed25519.pub.")
    if "\n" in rest.strip():
        raise ValueError("One key at a time, please.")
    try:
        parts = list(fields(base64.b64decode(text, validate=True)))
    except (binascii.Error, struct.error):
        parts = []
    if len(parts) < 2 or parts[0] != algorithm.encode():
        raise ValueError("The key is damaged: it was not copied whole.")
    return f"{algorithm} {text}", comment.strip()


def fields(blob):
    """The length-prefixed fields of a key's binary form (RFC 4251, section 5); struct.error when one is cut off."""
    at = 0
    while at < len(blob):
        (length,) = struct.unpack_from(">I", blob, at)
        yield struct.unpack_from(f"{length}s", blob, at + 4)[0]
        at += 4 + length


def fingerprint(key):
    """As ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
