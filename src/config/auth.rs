//! `auth` of an endpoint: `bearer`, `basic`, `{basic: USER}` or `{header: NAME}`.

use serde_yaml::Value;

use super::section::Section;
use crate::verify::auth::Auth;

/// The header that is to hold the key.
pub(super) fn read(entry: &mut Section<'_>) -> Option<Auth> {
    const AUTH_FORMS: &str = "is not one of `bearer`, `basic`, `{basic: USER}` and `{header: NAME}`";
    match entry.take("auth")? {
        Value::String(word) if word == "bearer" => Some(Auth::Bearer),
        Value::String(word) if word == "basic" => Some(Auth::Basic { user: None }),
        fields @ Value::Mapping(_) => {
            let mut fields = entry.within("auth", fields)?;
            let (user, header) = (fields.text("basic"), fields.text("header"));
            fields.finish();
            match (user, header) {
                (Some(user), None) if user.contains(':') => {
                    fields.mistake("basic", "no user name holds a colon (RFC 7617)");
                    None
                }
                (Some(user), None) => Some(Auth::Basic { user: Some(user) }),
                (None, Some(header)) if is_header_name(&header) => Some(Auth::Header(header)),
                (None, Some(header)) => {
                    fields.mistake("header", &format!("`{header}` is not the name of a header"));
                    None
                }
                _ => {
                    entry.mistake("auth", AUTH_FORMS);
                    None
                }
            }
        }
        _ => {
            entry.mistake("auth", AUTH_FORMS);
            None
        }
    }
}

/// A token by RFC 9110, section 5.6.2.
fn is_header_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
