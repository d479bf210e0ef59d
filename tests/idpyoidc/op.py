"""An OpenID provider for tests: idpyoidc behind Flask, with one client.

Tokens, endpoints, sessions, rotation and logout tokens are the library's. What is here: users' activity keeps their sessions
alive (a refresh or userinfo counts), and a session that is idle for SESSION_TTL seconds is ended by the library's own logout.

PORT, APP (the application's address), SESSION_TTL, ACCESS_TTL; POST /admin/end-session, with notify=0 without telling anybody.
"""

import json
import logging
import os
import tempfile
import threading
import time
import warnings
from pathlib import Path

from flask import Flask, Response, make_response, redirect, request
from idpyoidc.message.oauth2 import ResponseMessage
from idpyoidc.message.oidc import AccessTokenRequest, AuthorizationRequest
from idpyoidc.server import Server
from idpyoidc.server.configure import OPConfiguration

PORT = int(os.environ["PORT"])
ISSUER = f"http://127.0.0.1:{PORT}"
APP = os.environ["APP"]
SESSION_TTL = float(os.environ["SESSION_TTL"])
ACCESS_TTL = int(os.environ["ACCESS_TTL"])
CLIENT_ID, CLIENT_SECRET = "web-app", "web-app-secret-0123456789"

FORM = """<!doctype html>
<form action="{{ action }}" method="post">
<input type="hidden" name="token" value="{{ token }}"><input name="username"><input type="password" name="password"><button>Sign in</button>
</form>
"""


def configuration(folder: Path) -> dict:
    (folder / "templates").mkdir()
    (folder / "private").mkdir()
    (folder / "users.json").write_text(json.dumps({"alice": {"sub": "alice", "name": "Alice"}}))
    (folder / "passwords.json").write_text(json.dumps({"alice": "alice"}))
    (folder / "templates/user_pass.jinja2").write_text(FORM)
    by_secret = ["client_secret_basic", "client_secret_post"]
    tokens = ["access_token", "refresh_token", "id_token"]
    helper = "idpyoidc.server.oidc.token_helper"

    def endpoint(path, place, **settings):
        return {"path": path, "class": f"idpyoidc.server.{place}", "kwargs": settings}

    def key(name):
        return {"type": "oct", "bytes": 24, "use": ["enc"], "kid": name}

    return {
        "issuer": ISSUER,
        "entity_id": ISSUER,
        "httpc_params": {"verify": False, "timeout": 4},
        "template_dir": "templates",
        "add_on": {
            "pkce": {
                "function": "idpyoidc.server.oauth2.add_on.pkce.add_support",
                "kwargs": {"essential": True, "code_challenge_method": "S256"},
            }
        },
        "authz": {
            "class": "idpyoidc.server.authz.AuthzHandling",
            "kwargs": {
                "grant_config": {
                    "usage_rules": {
                        "authorization_code": {"supports_minting": tokens, "max_usage": 1, "expires_in": 60},
                        "access_token": {"expires_in": ACCESS_TTL},
                        "refresh_token": {"supports_minting": tokens, "expires_in": 3600},
                    },
                    "expires_in": 43200,
                }
            },
        },
        "authentication": {
            "user": {
                "acr": "urn:oasis:names:tc:SAML:2.0:ac:classes:InternetProtocolPassword",
                "class": "idpyoidc.server.user_authn.user.UserPassJinja2",
                "kwargs": {
                    "verify_endpoint": "verify/user",
                    "template": "user_pass.jinja2",
                    "db": {
                        "class": "idpyoidc.server.util.JSONDictDB",
                        "kwargs": {"filename": str(folder / "passwords.json")},
                    },
                    **dict.fromkeys(["page_header", "submit_btn", "user_label", "passwd_label"], ""),
                },
            }
        },
        "cookie_handler": {
            "class": "idpyoidc.server.cookie_handler.CookieHandler",
            "kwargs": {
                "keys": {
                    "private_path": str(folder / "private/cookies.json"),
                    "key_defs": [{"type": "OCT", "use": [use], "kid": use} for use in ["enc", "sig"]],
                    "read_only": False,
                },
                "flags": {"samesite": "Lax", "httponly": True, "secure": False},
                "name": {"session": "op", "register": "op_rp", "session_management": "op_sm"},
            },
        },
        "endpoint": {
            "provider_info": endpoint(
                ".well-known/openid-configuration",
                "oidc.provider_config.ProviderConfiguration",
                client_authn_method=None,
            ),
            "authorization": endpoint(
                "authorization",
                "oidc.authorization.Authorization",
                client_authn_method=None,
                response_types_supported=["code"],
                response_modes_supported=["query"],
            ),
            "token": endpoint(
                "token",
                "oidc.token.Token",
                client_authn_method=by_secret,
                revoke_refresh_on_issue=True,
                grant_types_helpers={
                    "authorization_code": {"class": f"{helper}.access_token.AccessTokenHelper"},
                    "refresh_token": {"class": f"{helper}.refresh_token.RefreshTokenHelper"},
                },
            ),
            "userinfo": endpoint("userinfo", "oidc.userinfo.UserInfo", client_authn_method=["bearer_header"]),
            "end_session": endpoint(
                "session",
                "oidc.session.Session",
                logout_verify_url="verify_logout",
                post_logout_uri_path="post_logout",
                signing_alg="ES256",
                backchannel_logout_supported=True,
                backchannel_logout_session_supported=True,
            ),
        },
        "keys": {
            "private_path": str(folder / "private/keys.json"),
            "key_defs": [{"type": "RSA", "use": ["sig"]}, {"type": "EC", "crv": "P-256", "use": ["sig"]}],
            "read_only": False,
            "uri_path": "jwks",
        },
        "token_handler_args": {
            "key_conf": {
                "private_path": str(folder / "private/tokens.json"),
                "key_defs": [key(name) for name in ["code", "token", "refresh"]],
                "read_only": False,
            },
            "code": {"lifetime": 60},
            "token": {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": ACCESS_TTL}},
            "refresh": {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 3600}},
            "id_token": {"class": "idpyoidc.server.token.id_token.IDToken", "kwargs": {"lifetime": 300}},
        },
        "userinfo": {
            "class": "idpyoidc.server.user_info.UserInfo",
            "kwargs": {"db_file": str(folder / "users.json")},
        },
        "claims_interface": {"class": "idpyoidc.server.session.claims.ClaimsInterface", "kwargs": {}},
    }


# That this is for tests only.
warnings.simplefilter("ignore")
FOLDER = Path(tempfile.mkdtemp(prefix="idpyoidc-"))
server = Server(OPConfiguration(conf=configuration(FOLDER), base_path=str(FOLDER), domain="127.0.0.1", port=PORT), cwd=str(FOLDER))
context = server.get_context()
sessions = context.session_manager
context.cdb[CLIENT_ID] = {
    "client_id": CLIENT_ID,
    "client_secret": CLIENT_SECRET,
    "redirect_uris": [(f"{APP}/auth/callback", {})],
    # Where the library looks; not under the name that registration gives it.
    "post_logout_redirect_uri": [(f"{APP}/", {})],
    "backchannel_logout_uri": f"{APP}/auth/backchannel-logout",
    "backchannel_logout_session_required": True,
    "token_endpoint_auth_method": "client_secret_basic",
    "response_types_supported": ["code"],
    "id_token_signed_response_alg": "RS256",
    "allowed_scopes": ["openid", "profile", "offline_access"],
    "client_salt": "salted",
    "subject_type": "public",
}
server.get_attribute("keyjar").add_symmetric(CLIENT_ID, CLIENT_SECRET)
# A logout with id_token_hint raises KeyError("token") in 5.0.0; it needs no authentication of the client.
server.get_endpoint("session").client_authentication = lambda *_, **__: None

app = Flask(__name__)
# The library's state is not made for threads.
lock = threading.RLock()
# When each session was used last.
used: dict[str, float] = {}


def with_cookies(response, cookies):
    for cookie in [cookies] if isinstance(cookies, dict) else cookies or []:
        settings = {name: value for name, value in cookie.items() if name != "name"}
        response.set_cookie(cookie["name"], **{"path": "/", "samesite": "Lax", **settings})
    return response


def finish(endpoint, asked, **answer):
    info = endpoint.do_response(request=asked, **answer)
    if info.get("response_placement", endpoint.response_placement) == "body":
        status = info.get("response_code", 400 if "error" in answer else 200)
        response = make_response(info["response"], status)
    else:
        response = redirect(info["response"])
    for name, value in info["http_headers"]:
        response.headers[name] = value
    return with_cookies(response, info.get("cookie"))


def refuse(error, description):
    body = json.dumps({"error": error, "error_description": description})
    return Response(body, 400, mimetype="application/json")


def keep_alive(kind, token):
    """A session is used by who uses one of its tokens."""
    try:
        session = sessions.get_session_info_by_token(token, handler_key=kind)["branch_id"]
    except Exception:
        return
    if session in used:
        used[session] = time.monotonic()


def serve(name):
    endpoint = server.get_endpoint(name)
    heard = {
        "headers": {k.lower(): v for k, v in request.headers.items() if k.lower() not in ("cookie", "user-agent")},
        "method": request.method,
        "url": request.url,
        "cookie": [{"name": k, "value": v} for k, v in request.cookies.items()],
    }
    fields = (request.args if request.method == "GET" else request.form).to_dict()
    with lock:
        try:
            asked = endpoint.parse_request(fields, http_info=heard)
            if isinstance(asked, ResponseMessage) and "error" in asked:
                return Response(asked.to_json(), 400, mimetype="application/json")
            if name == "token":
                asked = AccessTokenRequest(**asked)
            answer = endpoint.process_request(asked, http_info=heard)
        except Exception as error:
            return refuse("invalid_request", str(error))
        if "redirect_location" in answer:
            return redirect(answer["redirect_location"])
        if "http_response" in answer:
            return make_response(answer["http_response"], 200)
        if "error" not in answer:
            if name == "token" and "refresh_token" in fields:
                keep_alive("refresh_token", fields["refresh_token"])
            if name == "userinfo":
                keep_alive("access_token", heard["headers"].get("authorization", "")[len("Bearer ") :])
        return finish(endpoint, asked, **answer)


for path, name, methods in [
    (".well-known/openid-configuration", "provider_config", ["GET"]),
    ("authorization", "authorization", ["GET"]),
    ("token", "token", ["POST"]),
    ("userinfo", "userinfo", ["GET", "POST"]),
    ("session", "session", ["GET"]),
]:
    app.add_url_rule(f"/{path}", name, lambda name=name: serve(name), methods=methods)


@app.get("/jwks")
def jwks():
    return server.get_attribute("keyjar").export_jwks()


@app.post("/verify/user")
def verify_user():
    with lock:
        method, fields = context.authn_broker.get_method_by_id("user"), request.form.to_dict()
        try:
            user = method.verify(**fields)
        except Exception:
            return make_response("wrong name or password", 403)
        authentication = method.unpack_token(fields["token"])
        asked = AuthorizationRequest().from_urlencoded(authentication["query"])
        endpoint = server.get_endpoint("authorization")
        acr, at = authentication["authn_class_ref"], authentication["iat"]
        session = endpoint.create_session(asked, user, acr, at, method)
        used[session] = time.monotonic()
        answer = endpoint.authz_part2(request=asked, session_id=session)
        if isinstance(answer, ResponseMessage) and "error" in answer:
            return Response(answer.to_json(), 400, mimetype="application/json")
        return finish(endpoint, request, **answer)


@app.get("/verify_logout")
def verify_logout():
    """Nobody is asked."""
    endpoint = server.get_endpoint("session")
    with lock:
        info = endpoint.unpack_signed_jwt(request.args["sjwt"])
        endpoint.do_verified_logout(alla=True, **info)
        remove(info["sid"])
        return with_cookies(redirect(info["redirect_uri"]), endpoint.kill_cookies())


def end(session):
    server.get_endpoint("session").do_verified_logout(session, alla=True)
    remove(session)


def remove(session):
    """What has ended has to go: a logout token names the first session that a user has at a client, whichever it is about."""
    used.pop(session, None)
    sessions.remove_session(session)


@app.post("/admin/end-session")
def end_sessions():
    with lock:
        ending = list(used)
        for session in ending:
            if request.args.get("notify") == "0":
                remove(session)
            else:
                end(session)
    return {"ended": len(ending)}


def sweep():
    while True:
        time.sleep(0.5)
        with lock:
            for session in [session for session, at in used.items() if time.monotonic() - at > SESSION_TTL]:
                end(session)


if __name__ == "__main__":
    threading.Thread(target=sweep, daemon=True).start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    print("starts", flush=True)
    app.run("127.0.0.1", PORT, threaded=True)
