//! Proofs that the endpoint chooses, for providers that sign nothing but can add a header.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::key::Key;
use super::{Refusal, token};
use crate::delivery::{Delivery, Header};

/// A header that holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer <key>` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617): the key is the password.
    Basic {
        /// The user name that goes with it; any if there is none.
        user: Option<String>,
    },
    /// The key alone, in a header of this name.
    Header(String),
}

const AUTHORIZATION_HEADER: &str = "Authorization";

impl Auth {
    /// Returns the header with `<key>` in place of the key.
    pub fn describe(&self) -> String {
        match self {
            Auth::Bearer => "the header `Authorization: Bearer <key>`".to_owned(),
            Auth::Basic { user: Some(user) } => {
                format!("basic authentication, user `{user}`, the key as password")
            }
            Auth::Basic { user: None } => "basic authentication, any user, the key as password".to_owned(),
            Auth::Header(name) => format!("the header `{name}: <key>`"),
        }
    }

    /// The header that authenticates with this key.
    pub(super) fn header(&self, key: &str) -> (String, String) {
        let authorization = |value| (AUTHORIZATION_HEADER.to_owned(), value);
        match self {
            Auth::Bearer => authorization(format!("Bearer {key}")),
            Auth::Basic { user } => {
                let user = user.as_deref().unwrap_or("flux-recv");
                authorization(format!("Basic {}", STANDARD.encode(format!("{user}:{key}"))))
            }
            Auth::Header(name) => (name.clone(), key.to_owned()),
        }
    }
}

/// Checks that the header holds the key.
pub(super) fn check(delivery: &Delivery<'_>, auth: &Auth, key: &Key) -> Result<(), Refusal> {
    match auth {
        Auth::Header(name) => token::check(delivery, name, key),
        Auth::Bearer => {
            let token = credentials(delivery, "Bearer")?;
            token::compare(token.as_bytes(), key).ok_or_else(not_the_key)
        }
        Auth::Basic { user } => {
            let malformed =
                || Refusal::unauthenticated("the header Authorization holds no user and password");
            let pair = STANDARD.decode(credentials(delivery, "Basic")?).map_err(|_| malformed())?;
            let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
            let (name, password) = (&pair[..colon], &pair[colon + 1..]);
            // Both are looked at, so that the time tells nothing of the one that is wrong.
            let good = token::compare(password, key);
            let is_user = user.as_ref().is_none_or(|user| user.as_bytes() == name);
            good.filter(|()| is_user).ok_or_else(not_the_key)
        }
    }
}

fn not_the_key() -> Refusal {
    Refusal::unauthenticated("the header Authorization does not hold the key")
}

/// Returns what stands behind the scheme, whose name has no case (RFC 9110, section 11.1).
pub(super) fn credentials<'a>(delivery: &Delivery<'a>, scheme: &str) -> Result<&'a str, Refusal> {
    let value = match delivery.header(AUTHORIZATION_HEADER) {
        Header::Once(value) => value,
        Header::Absent => return Err(Refusal::unauthenticated("the header Authorization is missing")),
        Header::Repeated => {
            return Err(Refusal::unauthenticated("the header Authorization is there more than once"));
        }
    };
    std::str::from_utf8(value)
        .ok()
        .and_then(|value| value.trim().split_once(' '))
        .filter(|(written, _)| written.eq_ignore_ascii_case(scheme))
        .map(|(_, credentials)| credentials.trim())
        .filter(|credentials| !credentials.is_empty())
        .ok_or_else(|| {
            Refusal::unauthenticated(format!("the header Authorization does not have the scheme {scheme}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(auth: &Auth, header: (&str, &str)) -> bool {
        let headers = vec![(header.0.to_owned(), header.1.to_owned())];
        let key = Key::new("test.key", b"test-key".to_vec()).expect("a key");
        check(&Delivery { headers: &headers, body: b"" }, auth, &key).is_ok()
    }

    fn basic(pair: &str) -> String {
        format!("basic {}", STANDARD.encode(pair))
    }

    // Incident 12.
    #[test]
    fn only_the_whole_key_in_its_place_is_good() {
        assert!(good(&Auth::Bearer, ("authorization", "bearer  test-key ")));
        for value in
            ["test-key", "Bearer", "Bearer ", "Bearer test-ke", "Basic test-key", "Bearer test-key x"]
        {
            assert!(!good(&Auth::Bearer, ("Authorization", value)), "{value:?}");
        }
        let anyone = Auth::Basic { user: None };
        let flux = Auth::Basic { user: Some("flux".to_owned()) };
        assert!(good(&anyone, ("Authorization", &basic(":test-key"))));
        assert!(good(&anyone, ("Authorization", &basic("someone:test-key"))));
        assert!(good(&flux, ("Authorization", &basic("flux:test-key"))));
        assert!(!good(&flux, ("Authorization", &basic("Flux:test-key"))));
        for pair in ["", ":", "test-key", "flux:", "flux:test-key2", "flux:x:test-key"] {
            assert!(!good(&anyone, ("Authorization", &basic(pair))), "{pair:?}");
        }
        assert!(!good(&anyone, ("Authorization", "Basic ***")));
        assert!(good(&Auth::Header("X-Token".to_owned()), ("x-token", "test-key")));
        assert!(!good(&Auth::Header("X-Token".to_owned()), ("Authorization", "Bearer test-key")));
    }

    #[test]
    fn what_is_written_is_good() {
        for auth in [
            Auth::Bearer,
            Auth::Basic { user: None },
            Auth::Basic { user: Some("flux".to_owned()) },
            Auth::Header("X-Token".to_owned()),
        ] {
            let (name, value) = auth.header("test-key");
            assert!(good(&auth, (&name, &value)), "{auth:?}");
            let (name, value) = auth.header("another-key");
            assert!(!good(&auth, (&name, &value)), "{auth:?}");
        }
    }
}
