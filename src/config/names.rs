//! The names of endpoints where the config gives none.
//!
//! The name comes from the key file and not from the position, so that inserting an entry renames
//! no metric; and no file that worked with flux-recv for Flux v1 may fail over names.

use super::entry::EndpointEntry;

/// A name for each entry that could be read.
pub(super) fn assign(entries: &[Option<EndpointEntry>]) -> Vec<Option<String>> {
    let read = || entries.iter().flatten();
    let short = |entry: &EndpointEntry| without_extension(&entry.key_path).to_owned();
    entries
        .iter()
        .map(|entry| {
            let entry = entry.as_ref()?;
            if let Some(name) = &entry.name {
                return Some(name.clone());
            }
            let shares_key = read().filter(|other| other.key_path == entry.key_path).count() > 1;
            if let Some(host) = entry.registry_hosts.first().filter(|_| shares_key) {
                return Some(format!("{}@{host}", short(entry)));
            }
            let differs_by_extension =
                read().any(|other| other.key_path != entry.key_path && short(other) == short(entry));
            Some(if differs_by_extension { entry.key_path.clone() } else { short(entry) })
        })
        .collect()
}

fn without_extension(key_path: &str) -> &str {
    let file_name = key_path.rfind('/').map_or(0, |slash| slash + 1);
    match key_path[file_name..].rfind('.') {
        Some(dot) if dot > 0 => &key_path[..file_name + dot],
        _ => key_path,
    }
}
