//! Text of limited length. Payloads, headers and libraries' errors can be as long as a body, and what
//! is made of them is answered, logged and remembered.

use std::fmt;
use std::ops::Deref;

use serde::{Serialize, Serializer};

/// A text of at most [`MAX_TEXT_CHARS`] characters; a longer one is cut and ends in `…`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BoundedText(Box<str>);

/// Characters of a text that comes from outside. A repository, a branch and a reason fit twice over.
pub const MAX_TEXT_CHARS: usize = 512;

impl BoundedText {
    /// Writes no more of the value than the text may hold: an error can quote a whole body.
    pub fn from_display(value: impl fmt::Display) -> BoundedText {
        struct TruncatingWriter(String);
        impl fmt::Write for TruncatingWriter {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                // A character has at most four bytes, so this is never too little.
                let missing = (MAX_TEXT_CHARS * 4 + 1).saturating_sub(self.0.len());
                let end = (0..=missing.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
                self.0.push_str(&text[..end.unwrap_or(0)]);
                if missing == 0 { Err(fmt::Error) } else { Ok(()) }
            }
        }
        let mut beginning = TruncatingWriter(String::new());
        // It fails where there is enough already.
        let _ = fmt::Write::write_fmt(&mut beginning, format_args!("{value}"));
        beginning.0.into()
    }
}

impl From<&str> for BoundedText {
    fn from(text: &str) -> BoundedText {
        BoundedText(cut(text).unwrap_or_else(|| Box::from(text)))
    }
}

impl From<String> for BoundedText {
    fn from(text: String) -> BoundedText {
        BoundedText(cut(&text).unwrap_or_else(|| text.into_boxed_str()))
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> Option<Box<str>> {
    // A text has at least as many bytes as characters.
    if text.len() <= MAX_TEXT_CHARS {
        return None;
    }
    let (end, _) = text.char_indices().nth(MAX_TEXT_CHARS - 1)?;
    let is_last = text[end..].chars().nth(1).is_none();
    (!is_last).then(|| format!("{}…", &text[..end]).into_boxed_str())
}

impl Deref for BoundedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BoundedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BoundedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for BoundedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let exact = "ä".repeat(MAX_TEXT_CHARS);
        assert_eq!(&*BoundedText::from(exact.as_str()), exact);
        let longer = BoundedText::from("ä".repeat(MAX_TEXT_CHARS + 1));
        assert_eq!(longer.chars().count(), MAX_TEXT_CHARS);
        assert!(longer.ends_with("ä…"));
    }

    proptest! {
        #[test]
        fn no_text_is_longer(text in "\\PC{0,1200}") {
            let bounded = BoundedText::from(text.as_str());
            prop_assert!(bounded.chars().count() <= MAX_TEXT_CHARS);
            prop_assert_eq!(*bounded == *text, text.chars().count() <= MAX_TEXT_CHARS);
            prop_assert_eq!(BoundedText::from_display(&text), bounded);
        }
    }
}
