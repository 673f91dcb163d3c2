//! `flux-recv convert`: Flux's Receivers → a config file that keeps their URLs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::say;
use crate::field_error::FieldError;
use crate::flux_receiver::{self, ConfigEntry, FluxReceiver, Secret};

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// Receivers as YAML or JSON, and their Secrets if keys are to be written; `-` for standard input:
    /// kubectl get receivers,secrets -A -o yaml | flux-recv convert - --keys DIR
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the tokens of the Secrets as key files into this folder.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
}

/// The fields that are read of any object.
#[derive(Deserialize)]
struct ConvertObject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ConvertMetadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConvertMetadata {
    name: String,
    namespace: Option<String>,
}

type ObjectName = (String, String);

pub(super) fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    let text = read(&args.file)?;
    let (mut receivers, mut secrets) = (Vec::new(), BTreeMap::new());
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Option::<Value>::deserialize(document)
            .with_context(|| format!("{} is not valid YAML of Kubernetes objects", args.file.display()))?;
        collect(object.unwrap_or_default(), &mut receivers, &mut secrets);
    }
    let (mut entries, mut left_out) = (Vec::new(), 0);
    let mut text = String::new();
    for receiver in receivers {
        let receiver = match receiver {
            Ok(receiver) => receiver,
            Err(why) => {
                left_out += 1;
                text.push_str(&format!("# left out: {why}\n"));
                continue;
            }
        };
        let secret_name =
            receiver.spec.secret_ref.as_ref().map(|secret| (receiver.namespace.clone(), secret.name.clone()));
        let secret = secret_name.as_ref().and_then(|name| secrets.get(name));
        match flux_receiver::convert(&receiver, secret) {
            Ok(converted) => {
                text.push_str(&comments(&receiver, &converted, secret_name.as_ref(), args, secret)?);
                entries.push(Value::Object(converted.entry));
            }
            Err(why) => {
                left_out += 1;
                text.push_str(&format!("# left out: {}: {why}\n", receiver.endpoint_name()));
            }
        }
    }
    anyhow::ensure!(
        !entries.is_empty(),
        "{} holds no Receiver that can be converted\n{text}",
        args.file.display()
    );
    let config = json!({"fluxRecvVersion": 1, "endpoints": &entries});
    say(&format!("{text}{}", serde_yaml::to_string(&config)?))?;
    if left_out == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!(
        "{left_out} of {} Receivers cannot be converted; the comments `# left out` in the output say why",
        entries.len() + left_out
    )
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// Receivers and Secrets, also out of lists.
fn collect(
    object: Value,
    receivers: &mut Vec<anyhow::Result<FluxReceiver>>,
    secrets: &mut BTreeMap<ObjectName, Secret>,
) {
    let Ok(object) = serde_json::from_value::<ConvertObject>(object) else { return };
    let ConvertObject { kind, metadata, spec, data, items } = object;
    let (name, namespace) = (metadata.name, metadata.namespace.unwrap_or_else(|| "default".to_owned()));
    match kind.as_str() {
        "Receiver" => {
            let read = serde_path_to_error::deserialize(spec);
            receivers.push(match read {
                Ok(spec) => Ok(FluxReceiver {
                    namespace,
                    name,
                    created: String::new(),
                    uid: String::new(),
                    spec,
                    webhook_path: None,
                }),
                Err(err) => Err(anyhow::anyhow!(
                    "Receiver/{namespace}/{name}: {}",
                    FieldError::from_serde("spec", err)
                )),
            });
        }
        "Secret" => {
            let secret = Secret::from_data(|key| Some(data.get(key)?.as_str()));
            secrets.insert((namespace, name), secret);
        }
        _ => items.into_iter().for_each(|item| collect(item, receivers, secrets)),
    }
}

/// Returns notes about an entry as comments of the file.
fn comments(
    receiver: &FluxReceiver,
    converted: &ConfigEntry,
    secret_name: Option<&ObjectName>,
    args: &ConvertArgs,
    secret: Option<&Secret>,
) -> anyhow::Result<String> {
    let name = receiver.endpoint_name();
    let mut text: String = converted.notes.iter().map(|note| format!("# {name}: {note}\n")).collect();
    let key = secret.and_then(|secret| secret.token.as_ref());
    match (&args.keys, key, secret_name) {
        (Some(folder), Some(key), _) => write_key(&folder.join(&converted.key_path), key)?,
        (_, _, Some((namespace, secret))) => text.push_str(&format!(
            "# {name}: kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.token}}' | base64 -d > {}\n",
            converted.key_path
        )),
        _ => {}
    }
    Ok(text)
}

/// Exactly the bytes of the token: they make the URL.
fn write_key(file: &Path, key: &[u8]) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let written =
        options.write(true).create_new(true).mode(0o600).open(file).and_then(|mut file| file.write_all(key));
    written.with_context(|| format!("cannot write {}", file.display()))
}
