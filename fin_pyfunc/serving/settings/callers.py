"""The settings of who may call, from where and how often."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from fin_pyfunc.serving.settings.section import Section, Text
from fin_pyfunc.serving.settings.wording import ROOT, SettingsError


class Cors(Section, frozen=True):
    """Which web pages of other origins a browser lets call the API."""

    allow_origins: Annotated[
        tuple[Text, ...], Meta(description='Origins that may call, such as `https://example.com`; `"*"` is every one.')
    ] = ()
    allow_credentials: Annotated[
        bool, Meta(description='Whether browsers may send cookies and credentials; not together with the origin `"*"`.')
    ] = False
    allow_methods: Annotated[tuple[Text, ...], Meta(description="HTTP methods that other origins may use.")] = (
        "GET",
        "POST",
    )
    allow_headers: Annotated[tuple[Text, ...], Meta(description="Request headers that other origins may send.")] = (
        "Content-Type",
        "Authorization",
        "X-Request-ID",
    )

    def __post_init__(self) -> None:
        if self.allow_credentials and "*" in self.allow_origins:
            raise SettingsError(
                [
                    f"{ROOT}.cors.allow_origins: '*' cannot be combined with {ROOT}.cors.allow_credentials: true; "
                    "list the exact origins instead, or set allow_credentials to false"
                ]
            )


class Auth(Section, frozen=True):
    """Who may call."""

    mode: Annotated[
        Literal["off", "keys", "jwt", "keys+jwt", "external"],
        Meta(
            description="Who checks callers: nobody; this server, by API keys, by JWT, or by either; or (`external`) "
            "a proxy before it."
        ),
    ] = "off"
    keys_file: Annotated[
        Text | None, Meta(description="File of API keys that `fin-pyfunc keys` makes; the modes with `keys` need it.")
    ] = None
    jwks: Annotated[
        Text | None,
        Meta(description="File or `https://` address of the issuer's public keys (a JWKS); the modes with `jwt` do."),
    ] = None
    issuer: Annotated[Text | None, Meta(description="What a JWT's `iss` must be; the modes with `jwt` need it.")] = None
    audience: Annotated[
        Text | None, Meta(description="What a JWT's `aud` must be, or hold; the modes with `jwt` need it.")
    ] = None
    scopes_claim: Annotated[
        str, Meta(min_length=1, description="Claim with the scopes of a JWT: words in one text, or a list.")
    ] = "scope"
    models_claim: Annotated[
        str, Meta(min_length=1, description="Claim with the patterns of model URIs that a JWT is for; without it: all.")
    ] = "models"
    leeway_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="Seconds by which the issuer's clock and this one may differ.")
    ] = 30.0
    jwks_seconds: Annotated[float, Meta(gt=0, le=86400, description="Seconds after which the JWKS is read again.")] = (
        300.0
    )

    @property
    def by_keys(self) -> bool:
        """Whether API keys are taken."""
        return "keys" in self.mode

    @property
    def by_jwt(self) -> bool:
        """Whether JWT are taken."""
        return "jwt" in self.mode

    @property
    def is_on(self) -> bool:
        """Whether this server checks callers itself."""
        return self.by_keys or self.by_jwt

    def __post_init__(self) -> None:
        if self.by_keys and self.keys_file is None:
            raise SettingsError(
                [
                    f"{ROOT}.auth.keys_file: {ROOT}.auth.mode is {self.mode}, which needs a key file; "
                    "make one with 'fin-pyfunc keys add NAME --scope predict --file keys.json' and name it here"
                ]
            )
        wanted = {"jwks": self.jwks, "issuer": self.issuer, "audience": self.audience}
        if self.by_jwt and (missing := [name for name, value in wanted.items() if value is None]):
            raise SettingsError(
                [
                    f"{ROOT}.auth.{name}: {ROOT}.auth.mode is {self.mode}, which needs it: what the tokens' issuer says"
                    for name in missing
                ]
            )
        if self.jwks is not None and not _is_safe_address(self.jwks):
            raise SettingsError(
                [f"{ROOT}.auth.jwks: expected a file or an https:// address (http:// on loopback), got another address"]
            )


class Rate(Section, frozen=True):
    """How often one caller may ask."""

    requests: Annotated[
        Text | None,
        Meta(
            description="Requests that one caller, a key, a token's subject or else an address, may send, such as "
            "`100/second`; 429 beyond; null is no limit."
        ),
    ] = None
    storage: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where requests are counted: `memory://` is each worker by itself, `redis://host:port/0` all "
            "workers and hosts together.",
        ),
    ] = "memory://"
    storage_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds that Redis may take to count a request.")
    ] = 0.25
    when_storage_fails: Annotated[
        Literal["open", "closed"],
        Meta(description="While Redis does not answer: `open` lets requests through, `closed` answers 503."),
    ] = "open"
    trusted_proxies: Annotated[
        tuple[Text, ...],
        Meta(
            description="Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
            "believed; from any other address they are not looked at."
        ),
    ] = ("127.0.0.1", "::1")

    def __post_init__(self) -> None:
        problems = [
            f"{ROOT}.rate.trusted_proxies: expected addresses and networks such as 10.1.0.0/16, got another text"
            for proxy in self.trusted_proxies
            if not _is_network(proxy)
        ][:1]
        if re.fullmatch(r"memory://|rediss?://\S+", self.storage) is None:
            problems.append(f"{ROOT}.rate.storage: expected memory://, redis://host:port/0 or rediss://…, got another")
        if self.requests is not None and not _is_rate(self.requests):
            problems.append(
                f"{ROOT}.rate.requests: expected one rate, such as 100/second, 5000/minute or 1/day, got another text"
            )
        if problems:
            raise SettingsError(problems)


class Tls(Section, frozen=True):
    """HTTPS without a proxy."""

    certfile: Annotated[
        Text | None, Meta(description="PEM file of the server's certificate and its chain; null serves plain HTTP.")
    ] = None
    keyfile: Annotated[
        Text | None, Meta(description="PEM file of the certificate's private key, where `certfile` does not hold it.")
    ] = None


def _is_rate(text: str) -> bool:
    from limits import parse_many  # a tenth of a second, for those who set a rate

    try:
        rates = parse_many(text)
    except ValueError:
        return False
    return len(rates) == 1 and rates[0].amount >= 1


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_safe_address(text: str) -> bool:
    """A path, or an address that nobody on the way can answer in the issuer's place."""
    if "://" not in text or text.startswith("https://"):
        return True
    host = urlsplit(text).hostname if text.startswith("http://") else None
    return host == "localhost" or (host is not None and _is_network(host) and ipaddress.ip_address(host).is_loopback)
