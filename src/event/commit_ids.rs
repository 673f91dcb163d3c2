//! The commit IDs that a push brings, in one piece: a push can have thousands.

use serde::{Deserialize, Serialize};

/// Commit IDs in the order in which the sender lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitIds {
    /// With a space behind each.
    joined: String,
}

impl CommitIds {
    /// Whether this ID is one of them.
    pub fn contains(&self, id: &str) -> bool {
        self.iter().any(|other| other == id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.joined.split_terminator(' ')
    }
}

/// Leaves out what cannot be an ID: the empty text, and text with a space in it. The same ID twice
/// in a row is taken once.
impl<'a> FromIterator<&'a str> for CommitIds {
    fn from_iter<I: IntoIterator<Item = &'a str>>(ids: I) -> CommitIds {
        let mut joined = String::new();
        let mut last = "";
        for id in ids.into_iter().filter(|id| !id.is_empty() && !id.contains(' ')) {
            if id == last {
                continue;
            }
            joined.push_str(id);
            joined.push(' ');
            last = id;
        }
        CommitIds { joined }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_apart() {
        let ids: CommitIds = ["abc", "abc", "", "de f", "12"].into_iter().collect();
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["abc", "12"]);
        assert!(ids.contains("12") && !ids.contains("ab") && !ids.contains("abc 12") && !ids.contains(""));
        assert_eq!(CommitIds::default().iter().count(), 0);
    }
}
