//! One HTTP request to a hook path, before it is verified.

use std::borrow::Cow;

/// A delivery as it was received. It is not verified; see [`crate::verify`].
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    pub headers: &'a dyn Headers,
    /// Its body, byte for byte.
    pub body: &'a [u8],
}

/// The beginning of the form field that carries JSON.
const PAYLOAD_FIELD: &[u8] = b"payload=";

/// The headers of a delivery, whatever HTTP library holds them.
pub trait Headers {
    /// Calls `visit` with each value of the header, whose name is compared without case.
    fn visit<'h>(&'h self, name: &str, visit: &mut dyn FnMut(&'h [u8]));

    /// Calls `visit` with the name and value of every header.
    fn visit_all<'h>(&'h self, visit: &mut dyn FnMut(&'h str, &'h [u8]));
}

/// A header that is expected at most once.
#[derive(Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// It is not there.
    Absent,
    /// It is there once.
    Once(&'a [u8]),
    /// It is there more than once, which no provider of ours does: one half of a pair of proxies
    /// might read the first and the other the last.
    Repeated,
}

impl<'a> Delivery<'a> {
    /// The header of this name.
    pub fn header(&self, name: &str) -> Header<'a> {
        let mut found = Header::Absent;
        self.headers.visit(name, &mut |value| {
            found = match found {
                Header::Absent => Header::Once(value),
                _ => Header::Repeated,
            };
        });
        found
    }

    /// The value of a header that is there once, is UTF-8 and is not empty.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.header(name) {
            Header::Once(value) => {
                std::str::from_utf8(value).ok().map(str::trim).filter(|text| !text.is_empty())
            }
            Header::Absent | Header::Repeated => None,
        }
    }

    /// The JSON text of the body: the body itself, or its field `payload` if it is a form.
    pub fn payload(&self) -> Option<Cow<'a, [u8]>> {
        let media_type = self.text("content-type").unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Some(Cow::Borrowed(self.body));
        }
        // Only this field is decoded: a body has room for millions, and nobody has been verified yet.
        let field = self.body.split(|byte| *byte == b'&').find(|field| field.starts_with(PAYLOAD_FIELD))?;
        let (_, value) = url::form_urlencoded::parse(field).next()?;
        Some(Cow::Owned(value.into_owned().into_bytes()))
    }
}

/// Headers as a list, for providers and tests.
impl Headers for Vec<(String, String)> {
    fn visit<'h>(&'h self, name: &str, visit: &mut dyn FnMut(&'h [u8])) {
        for (header, value) in self {
            if header.eq_ignore_ascii_case(name) {
                visit(value.as_bytes());
            }
        }
    }

    fn visit_all<'h>(&'h self, visit: &mut dyn FnMut(&'h str, &'h [u8])) {
        self.iter().for_each(|(name, value)| visit(name, value.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    // Incident 12: duplicate headers.
    #[test]
    fn a_repeated_header_has_no_value() {
        let headers = headers(&[("X-Signature", "a"), ("x-signature", "b"), ("X-Event", " push ")]);
        let delivery = Delivery { headers: &headers, body: b"" };
        assert_eq!(delivery.header("X-SIGNATURE"), Header::Repeated);
        assert_eq!(delivery.text("x-signature"), None);
        assert_eq!(delivery.text("x-event"), Some("push"));
        assert_eq!(delivery.header("x-other"), Header::Absent);
    }

    #[test]
    fn a_form_carries_its_json_in_one_field() {
        let headers = headers(&[("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")]);
        let delivery = Delivery { headers: &headers, body: b"a=1&payload=%7B%22x%22%3A1+%7D" };
        assert_eq!(delivery.payload().as_deref(), Some(&b"{\"x\":1 }"[..]));
        assert_eq!(Delivery { body: b"a=1", ..delivery }.payload(), None);
    }
}
