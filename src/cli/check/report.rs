//! What `flux-recv check` has found: for scripts as it is, for people in tables.

use serde::Serialize;

use super::fleet::FleetReport;
use crate::cli::table::Table;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckReport {
    /// Whether nothing is wrong.
    pub(super) good: bool,
    pub(super) endpoints: Vec<EndpointRow>,
    pub(super) warnings: Vec<String>,
    /// Key files that are not there: in the CI of a repository keys are elsewhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing_keys: Vec<String>,
    #[serde(flatten)]
    pub(super) fleet: FleetReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointRow {
    pub(super) name: String,
    pub(super) provider: &'static str,
    /// Whether knowing the URL is not enough.
    pub(super) authenticated: bool,
}

/// The cluster as this identity sees it.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<String>,
    /// The name under which the API server knows the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    pub(super) kinds: Vec<KindRow>,
    /// A line for each Receiver.
    pub(super) receivers: Vec<String>,
    /// What can never match.
    pub(super) warnings: Vec<String>,
    pub(super) hints: Vec<String>,
    /// Why the cluster could not be examined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// Why there is nothing to examine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_needed: Option<String>,
    #[serde(skip)]
    pub(super) receivers_are_good: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KindRow {
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    /// The version that is used; none if the cluster does not serve the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) objects: Option<usize>,
    pub(super) missing_rights: Vec<&'static str>,
    /// The component that grants them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) component: Option<&'static str>,
}

impl ClusterReport {
    pub(super) fn not_needed(host: &str) -> ClusterReport {
        ClusterReport {
            not_needed: Some(format!("events go to fluxd at {host}")),
            receivers_are_good: true,
            ..ClusterReport::default()
        }
    }

    pub(super) fn failed(error: String) -> ClusterReport {
        ClusterReport { error: Some(error), ..ClusterReport::default() }
    }

    /// A kind that the cluster does not have is not a mistake: not everyone runs every controller. (No kind at
    /// all is one.)
    pub(super) fn is_good(&self) -> bool {
        let may_all = |row: &KindRow| row.version.is_none() || row.missing_rights.is_empty();
        self.not_needed.is_some()
            || (self.error.is_none()
                && self.receivers_are_good
                && self.warnings.is_empty()
                && self.kinds.iter().all(may_all)
                && self.kinds.iter().any(|row| row.version.is_some()))
    }

    fn describe(&self) -> String {
        if let Some(why) = &self.not_needed {
            return format!("\ncluster: not needed, {why}\n");
        }
        if let Some(error) = &self.error {
            return format!("\ncluster: {error}\n");
        }
        let server = self.server.as_deref().unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let context = self.context.as_ref().map(|name| format!(" (context {name})")).unwrap_or_default();
        let mut table = Table::new(&["KIND", "VERSION", "NAMESPACE", "OBJECTS", "MISSING-RIGHTS"]);
        for row in &self.kinds {
            let component =
                row.component.map(|name| format!(" ({name} gives the right)")).unwrap_or_default();
            let rights = match &row.version {
                None => "the cluster has no such kind".to_owned(),
                Some(_) if row.missing_rights.is_empty() => String::new(),
                Some(_) => format!("{}{component}", row.missing_rights.join(", ")),
            };
            table.add(vec![
                row.kind.clone(),
                row.version.clone().unwrap_or_default(),
                row.namespace.clone().unwrap_or_default(),
                row.objects.map(|count| count.to_string()).unwrap_or_default(),
                rights,
            ]);
        }
        let mut text = format!("\ncluster: {server}{user}{context}\n{}", table.draw());
        text.extend(self.receivers.iter().map(|line| format!("{line}\n")));
        text.extend(self.warnings.iter().map(|warning| format!("warning: {warning}\n")));
        text.extend(self.hints.iter().map(|hint| format!("hint: {hint}\n")));
        text
    }
}

impl CheckReport {
    /// Describes it for people.
    pub(super) fn describe(&self) -> String {
        let mut table = Table::new(&["ENDPOINT", "PROVIDER", "AUTHENTICATED"]);
        for row in &self.endpoints {
            let authenticated =
                if row.authenticated { "yes" } else { "no, protected by the secret path alone" };
            table.add(vec![row.name.clone(), row.provider.to_owned(), authenticated.to_owned()]);
        }
        let mut text = if self.endpoints.is_empty() { String::new() } else { table.draw() };
        text.extend(self.warnings.iter().map(|warning| format!("warning: {warning}\n")));
        let note = |file: &String| format!("note: {file} is not here, so the key was not checked\n");
        text.extend(self.missing_keys.iter().map(note));
        text.push_str(&self.fleet.describe());
        text.extend(self.cluster.iter().map(ClusterReport::describe));
        text
    }
}
