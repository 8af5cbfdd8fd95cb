"""The webhook that the gateway asks: may this password, or this key, log in?

An answer with status 200 is a verdict. A gateway that does not show the right token gets 401, and what is no question of the protocol 400.
The gateway asks about a key twice, once when a client offers it and once when the client's signature has been verified; both get the same answer.
"""

import base64
import json
import logging
from functools import wraps

from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import update_last_login
from django.http import HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from .models import SSHProfile

log = logging.getLogger(__name__)


def question(view):
    """Lets only the gateway in, and hands the view the question as a dict."""

    @csrf_exempt  # The token proves who asks; there is no browser and no cookie.
    @require_POST
    @sensitive_variables()
    @wraps(view)
    def wrapper(request):
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not constant_time_compare(token, settings.INNKEEPER_TOKEN):
            log.warning("a question with a wrong token, from %s", request.META.get("REMOTE_ADDR"))
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            asked = json.loads(request.body)
            return view(request, asked)
        except (ValueError, TypeError, KeyError) as error:
            # The type alone: the text could repeat a password.
            log.warning("a question that is not of the protocol: %s", type(error).__name__)
            return HttpResponse(status=400)

    return wrapper


@question
@sensitive_variables()
def password(request, asked):
    try:
        username, typed = text(asked, "username"), base64.b64decode(text(asked, "passwordBase64"), validate=True).decode()
    except UnicodeDecodeError:
        return denied()  # Nobody of this site has such a password.
    if "\0" in username:
        return denied()
    # Takes as long for a name that nobody has, and refuses users who are not active.
    user = authenticate(request, username=username, password=typed)
    if user is None:
        return denied()
    update_last_login(None, user)
    return granted(user)


@question
def pubkey(request, asked):
    # Only the algorithm and the key count; a comment may follow them.
    username, offered = text(asked, "username"), " ".join(text(asked, "publicKey").split()[:2])
    if "\0" in username or "\0" in offered:
        return denied()
    users = get_user_model().objects.filter(ssh_keys__key=offered, is_active=True)
    user = users.filter(**{get_user_model().USERNAME_FIELD: username}).first()
    # An offer is no login, and it is not told apart here: last_login stays as it is.
    return granted(user) if user else denied()


def text(asked, name):
    value = asked[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def denied():
    return JsonResponse({"success": False})


def granted(user):
    answer = {"success": True, "authenticatedUsername": user.get_username()}
    profile = SSHProfile.objects.filter(user=user).first()
    if profile and (extras := profile.innkeeper()):
        answer["innkeeper"] = extras
    return JsonResponse(answer)
