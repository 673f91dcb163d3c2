//! Version ranges as Flux reads them.
//!
//! Flux uses `Masterminds/semver` v3, whose grammar and pre-release rule differ from Cargo's and
//! npm's, so no crate for those can stand in: a bare `1.2.3` is exact, `||` is OR, a space or a
//! comma is AND, and a pre-release fits a group only if some comparator of that group names one.

use std::cmp::Ordering;

use semver::{BuildMetadata, Prerelease, Version};

/// A range such as `>=1.0.0 <2.0.0 || ~3.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// Alternatives; in each, every comparator must hold.
    groups: Vec<Vec<Comparator>>,
}

/// A text is not a range. Flux reports the same on the object, so matching lets any tag pass.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a semver range: `{0}`")]
pub struct NotAConstraint(String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparator {
    operator: Operator,
    base: Version,
    precision: Precision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// The number of parts of a version that are written and not a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Any,
    Major,
    Minor,
    Patch,
}

impl Constraint {
    /// Parses a range as Flux does, see <https://github.com/Masterminds/semver>.
    pub fn parse(text: &str) -> Result<Constraint, NotAConstraint> {
        let groups: Option<Vec<_>> = text.split("||").map(parse_group).collect();
        groups.map(|groups| Constraint { groups }).ok_or_else(|| NotAConstraint(text.to_owned()))
    }

    /// Whether the version lies in the range.
    pub fn matches(&self, version: &Version) -> bool {
        self.groups.iter().any(|group| {
            let wants_prereleases = group.iter().any(|comparator| !comparator.base.pre.is_empty());
            group.iter().all(|comparator| comparator.matches(version, wants_prereleases))
        })
    }
}

/// Reads a Git or OCI tag as Flux does: three parts, an optional `v`, leading zeros tolerated.
pub fn version_of_tag(tag: &str) -> Option<Version> {
    let core = tag.split(['-', '+']).next()?;
    if core.split('.').count() != 3 {
        return None;
    }
    parse_version(tag)
}

/// Reads a version whose minor and patch may be missing.
fn parse_version(text: &str) -> Option<Version> {
    let (base, precision) = parse_partial(text)?;
    let wildcards = text.split(['-', '+']).next()?.contains(['x', 'X', '*']);
    (precision != Precision::Any && !wildcards).then_some(base)
}

fn parse_group(text: &str) -> Option<Vec<Comparator>> {
    let words = words(text);
    if words.is_empty() {
        return None;
    }
    let mut comparators = Vec::with_capacity(words.len());
    let mut rest = words.as_slice();
    while let Some((&(operator, version), tail)) = rest.split_first() {
        if let [("", "-"), (high_operator, high), after @ ..] = tail {
            if !operator.is_empty() || !high_operator.is_empty() {
                return None;
            }
            comparators.push(Comparator::new(">=", version)?);
            comparators.push(Comparator::new("<=", high)?);
            rest = after;
            continue;
        }
        comparators.push(Comparator::new(operator, version)?);
        rest = tail;
    }
    Some(comparators)
}

/// Splits at spaces and commas into (operator, version); an operator may stand apart from its
/// version.
fn words(text: &str) -> Vec<(&str, &str)> {
    let is_operator = |c: char| "=!<>~^".contains(c);
    let is_gap = |c: char| c.is_whitespace() || c == ',';
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_gap);
    while !rest.is_empty() {
        let (operator, after) = rest.split_at(rest.find(|c| !is_operator(c)).unwrap_or(rest.len()));
        let after = after.trim_start();
        let end = after.find(|c| is_gap(c) || is_operator(c)).unwrap_or(after.len());
        words.push((operator, &after[..end]));
        rest = after[end..].trim_start_matches(is_gap);
    }
    words
}

impl Comparator {
    fn new(operator: &str, version: &str) -> Option<Comparator> {
        let operator = match operator {
            "" | "=" => Operator::Equal,
            "!=" => Operator::NotEqual,
            ">" => Operator::Greater,
            "<" => Operator::Less,
            ">=" | "=>" => Operator::GreaterOrEqual,
            "<=" | "=<" => Operator::LessOrEqual,
            "~" | "~>" => Operator::Tilde,
            "^" => Operator::Caret,
            _ => return None,
        };
        let (base, precision) = parse_partial(version)?;
        Some(Comparator { operator, base, precision })
    }

    fn matches(&self, version: &Version, wants_prereleases: bool) -> bool {
        let Comparator { operator, base, precision } = self;
        let exact = *precision == Precision::Patch;
        if !version.pre.is_empty() && !wants_prereleases {
            return false;
        }
        let order = version.cmp_precedence(base);
        let by_prefix = self.compare_prefix(version);
        match operator {
            Operator::Equal if exact => order == Ordering::Equal,
            Operator::NotEqual if exact => order != Ordering::Equal,
            Operator::NotEqual => by_prefix != Ordering::Equal,
            Operator::Greater if exact => order == Ordering::Greater,
            Operator::Greater => by_prefix == Ordering::Greater,
            Operator::Less => order == Ordering::Less,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::LessOrEqual if exact => order != Ordering::Greater,
            Operator::LessOrEqual => by_prefix != Ordering::Greater,
            Operator::Equal | Operator::Tilde => order != Ordering::Less && self.within_tilde(version),
            Operator::Caret => order != Ordering::Less && self.within_caret(version),
        }
    }

    /// Compares only the parts that are written.
    fn compare_prefix(&self, version: &Version) -> Ordering {
        let parts = match self.precision {
            Precision::Any => 0,
            Precision::Major => 1,
            Precision::Minor => 2,
            Precision::Patch => 3,
        };
        release(version)[..parts].cmp(&release(&self.base)[..parts])
    }

    /// `~1` stays within the major version, `~1.2` and `~1.2.3` within the minor one.
    fn within_tilde(&self, version: &Version) -> bool {
        let [major, minor, _] = release(&self.base);
        match self.precision {
            Precision::Any => true,
            Precision::Major => version.major == major,
            Precision::Minor | Precision::Patch => version.major == major && version.minor == minor,
        }
    }

    /// `^` keeps the leftmost part that is not zero.
    fn within_caret(&self, version: &Version) -> bool {
        let [major, minor, patch] = release(&self.base);
        let kept = match self.precision {
            Precision::Any => 0,
            Precision::Major => 1,
            _ if major > 0 => 1,
            Precision::Minor => 2,
            Precision::Patch if minor > 0 => 2,
            Precision::Patch => 3,
        };
        release(version)[..kept] == [major, minor, patch][..kept]
    }
}

fn release(version: &Version) -> [u64; 3] {
    [version.major, version.minor, version.patch]
}

/// Reads `[v]major[.minor[.patch]][-pre][+build]`, each number or a wildcard `x`, `X`, `*`; what
/// follows a wildcard counts as zero.
fn parse_partial(text: &str) -> Option<(Version, Precision)> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (text, build) = split_suffix(text, '+')?;
    let (core, pre) = split_suffix(text, '-')?;
    BuildMetadata::new(build).ok()?;
    let pre = Prerelease::new(pre).ok()?;
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() > 3 {
        return None;
    }
    let mut numbers = [0_u64; 3];
    let mut written = 0;
    let mut wildcard = false;
    for (at, part) in parts.iter().enumerate() {
        let is_wildcard = matches!(*part, "x" | "X" | "*");
        wildcard |= is_wildcard;
        if is_wildcard {
            continue;
        }
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = part.parse().ok()?;
        if !wildcard {
            numbers[at] = number;
            written = at + 1;
        }
    }
    let precision = match written {
        0 => Precision::Any,
        1 => Precision::Major,
        2 => Precision::Minor,
        _ => Precision::Patch,
    };
    let [major, minor, patch] = numbers;
    Some((Version { major, minor, patch, pre, build: BuildMetadata::EMPTY }, precision))
}

/// Splits a text at the mark; a mark with nothing behind it is a mistake.
fn split_suffix(text: &str, mark: char) -> Option<(&str, &str)> {
    match text.split_once(mark) {
        None => Some((text, "")),
        Some((_, "")) => None,
        Some(parts) => Some(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(range: &str, inside: &[&str], outside: &[&str]) {
        let constraint = Constraint::parse(range).unwrap_or_else(|err| panic!("{err}"));
        for (tags, expect) in [(inside, true), (outside, false)] {
            for tag in tags {
                let version = version_of_tag(tag).unwrap_or_else(|| panic!("{tag} is not a version"));
                assert_eq!(constraint.matches(&version), expect, "{range} {tag}");
            }
        }
    }

    #[test]
    fn ranges_follow_masterminds() {
        check("1.2.3", &["1.2.3", "v1.2.3", "1.2.3+build"], &["1.2.4", "1.2.3-rc.1"]);
        check("~1.2.3", &["1.2.3", "1.2.9"], &["1.2.2", "1.3.0"]);
        check("~1", &["1.0.0", "1.9.9"], &["0.9.9", "2.0.0"]);
        check("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "0.2.2"]);
        check("^0.0.3", &["0.0.3"], &["0.0.4"]);
        check("^0.0", &["0.0.9"], &["0.1.0"]);
        check("^0", &["0.9.0"], &["1.0.0"]);
        check("1.2 - 1.4.5", &["1.2.0", "1.4.5"], &["1.1.9", "1.4.6"]);
        check(">= 1.0, < 2.0 || 3.x", &["1.5.0", "3.9.0"], &["2.0.0", "4.0.0"]);
        check("<=2.x", &["2.9.9"], &["3.0.0"]);
        check("!=1.2", &["1.3.0", "2.2.0"], &["1.2.0", "1.2.9"]);
        check("*", &["0.0.0", "99.0.0"], &["1.0.0-rc.1"]);
        check(">=1.0.0-0", &["1.0.0-rc.1", "1.0.0"], &["0.9.0"]);
        check(">=2025.01.01", &["v2025.02.03"], &["2024.12.31"]);
    }

    #[test]
    fn tags_need_three_parts() {
        for tag in ["1.2", "1", "latest", "v1.2.3.4", "1.x.0", "", "release-1.2.3", "1.2.3-", "1..3"] {
            assert_eq!(version_of_tag(tag), None, "{tag}");
        }
    }

    #[test]
    fn texts_that_are_no_range_are_refused() {
        for range in ["", "latest", "1.2.3.4", ">>1", "1 -", "|| 1", "1.0.0-01", "> 1 - 2"] {
            assert!(Constraint::parse(range).is_err(), "{range:?}");
        }
    }

    /// Rows of (range, version, `true` | `false` | `CERR`), as the Go library answers. They are input about
    /// that library; the tests above restate the rules.
    #[test]
    #[ignore = "reads a table of answers of the Go library, the file FLUX_RECV_SEMVER_TABLE"]
    fn agrees_with_the_oracle_table() {
        let path = std::env::var("FLUX_RECV_SEMVER_TABLE").expect("FLUX_RECV_SEMVER_TABLE names the table");
        let table = std::fs::read_to_string(path).expect("the table");
        let mut rows = 0;
        for line in table.lines() {
            let [range, version, expect] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("a row has three columns: {line:?}");
            };
            let version = parse_version(version).unwrap_or_else(|| panic!("{line:?}"));
            let answer = match Constraint::parse(range) {
                Err(_) => "CERR",
                Ok(constraint) if constraint.matches(&version) => "true",
                Ok(_) => "false",
            };
            assert_eq!(answer, expect, "{range:?} {version}");
            rows += 1;
        }
        assert!(rows > 500, "the table was cut: {rows} rows");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = Constraint::parse(&text);
            let _ = version_of_tag(&text);
        }
    }
}
