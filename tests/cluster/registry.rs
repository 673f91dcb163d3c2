//! A real CNCF registry whose notifications reach an OCIRepository.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::bed::Bed;
use super::chain::start_source_controller;
use super::costs::hook_url;
use super::process::{Process, free_port, wait_for};
use super::receive::{FluxRecv, create, own_token, requested_at, test_key};

const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: distribution, keyPath: harbor.key, name: registry, auth: bearer}
";

/// A flux-recv with an endpoint for the registry.
fn start_flux_recv(bed: &Bed, folder: tempfile::TempDir) -> FluxRecv {
    std::fs::write(folder.path().join("fluxrecv.yaml"), CONFIG).expect("a config");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let mut running = FluxRecv::start_in(folder, kubeconfig, &["--min-interval", "0"]);
    running.wait_until_synced();
    running
}

/// A registry that notifies flux-recv with the time limit that it has by itself.
fn start_registry(bed: &Bed, url: &str, key: &str) -> (Process, String) {
    let host = format!("127.0.0.1:{}", free_port());
    let config = json!({
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"inmemory": {}, "delete": {"enabled": true}},
        "http": {"addr": host},
        "notifications": {"endpoints": [{
            "name": "flux-recv", "url": url, "headers": {"Authorization": [format!("Bearer {key}")]},
            "timeout": "1s", "threshold": 5, "backoff": "1s", "ignore": {"actions": ["pull"]},
        }]},
    });
    let file = bed.path("registry.yaml");
    std::fs::write(&file, config.to_string()).expect("a config");
    let mut command = Command::new(bed.parts.cache.join("bin/registry"));
    command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
    let process = Process::spawn(&mut command, &bed.path("registry.log"));
    let base = format!("http://{host}");
    wait_for("the registry", PATIENCE, || bed.block_on(reqwest::get(format!("{base}/v2/"))).ok());
    (process, base)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn upload(base: &str, repository: &str, blob: &[u8]) {
    let client = reqwest::Client::new();
    let started =
        client.post(format!("{base}/v2/{repository}/blobs/uploads/")).send().await.expect("an answer");
    let place = started.headers()["location"].to_str().expect("an address").to_owned();
    let place = if place.starts_with('/') { format!("{base}{place}") } else { place };
    let separator = if place.contains('?') { '&' } else { '?' };
    let url = format!("{place}{separator}digest={}", digest(blob));
    let put =
        client.put(url).header("Content-Type", "application/octet-stream").body(blob.to_vec()).send().await;
    assert_eq!(put.expect("an answer").status().as_u16(), 201);
}

/// Pushes an artifact as `flux push artifact` does; gives the manifest's digest.
async fn push(base: &str, repository: &str, tag: &str, content: &[u8]) -> String {
    let config = json!({"mediaType": "application/vnd.cncf.flux.config.v1+json"});
    let layer = json!({"mediaType": "application/vnd.cncf.flux.content.v1.tar+gzip"});
    push_manifest(base, repository, tag, (config, b"{}"), (layer, content)).await
}

/// Pushes a config and a layer, each as its descriptor and its bytes; gives the manifest's digest.
async fn push_manifest(
    base: &str,
    repository: &str,
    tag: &str,
    config: (Value, &[u8]),
    layer: (Value, &[u8]),
) -> String {
    let mut descriptors = Vec::new();
    for (mut descriptor, bytes) in [config, layer] {
        upload(base, repository, bytes).await;
        descriptor["digest"] = json!(digest(bytes));
        descriptor["size"] = json!(bytes.len());
        descriptors.push(descriptor);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptors[0], "layers": [descriptors[1]],
    })
    .to_string();
    let put = reqwest::Client::new()
        .put(format!("{base}/v2/{repository}/manifests/{tag}"))
        .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        .body(manifest.clone())
        .send()
        .await;
    assert_eq!(put.expect("an answer").status().as_u16(), 201);
    digest(manifest.as_bytes())
}

pub fn a_registrys_notifications_reach_the_oci_repository(bed: &Bed) {
    let folder = tempfile::tempdir().expect("a folder");
    let running = start_flux_recv(bed, folder);
    let (_registry, base) = start_registry(bed, &hook_url(&running, "registry"), &test_key("harbor"));
    let host = base.trim_start_matches("http://");
    let api = "/apis/source.toolkit.fluxcd.io/v1";
    for (name, repository, tag) in
        [("pushed", "fleet/app", "v1"), ("other-tag", "fleet/app", "v2"), ("other", "fleet/other", "v1")]
    {
        let spec =
            json!({"url": format!("oci://{host}/{repository}"), "ref": {"tag": tag}, "insecure": true});
        create(bed, api, "OCIRepository", "ocirepositories", "apps", name, spec);
    }
    let requested =
        |name: &str| requested_at(&bed.get(&format!("{api}/namespaces/apps/ocirepositories/{name}")));
    // Others may have left some of theirs.
    let listed = bed.get(&format!("{api}/ocirepositories"));
    let all = listed["items"].as_array().map_or(0, Vec::len);
    wait_for("the objects to be known", PATIENCE, || {
        let text = bed.block_on(async {
            reqwest::get(format!("{}/metrics", running.admin)).await.ok()?.text().await.ok()
        })?;
        let known = format!("flux_recv_inventory_objects{{kind=\"OCIRepository\"}} {all}\n");
        text.contains(&known).then_some(())
    });

    bed.block_on(push(&base, "fleet/app", "v1", b"first"));
    let first = wait_for("the OCIRepository to be requested", PATIENCE, || requested("pushed"));
    // The registry sends in order, so the second push shows that nothing got stuck behind the first.
    let digest = bed.block_on(push(&base, "fleet/app", "v1", b"second"));
    wait_for("the OCIRepository to be requested again", PATIENCE, || {
        requested("pushed").filter(|again| *again != first)
    });
    bed.block_on(async {
        let client = reqwest::Client::new();
        let deleted = client.delete(format!("{base}/v2/fleet/app/manifests/{digest}")).send().await;
        assert_eq!(deleted.expect("an answer").status().as_u16(), 202);
    });
    wait_for("the deletion", PATIENCE, || {
        let mut lines = running.process.log_lines().into_iter();
        lines.any(|line| line.field("detail").contains("deletion of ")).then_some(())
    });
    assert_eq!((requested("other-tag"), requested("other")), (None, None));
    let mut answers = running.process.log_lines();
    answers.retain(|line| !line.field("micros").is_empty());
    assert!(
        answers.iter().all(|line| ["200", "202"].contains(&line.field("status").as_str())),
        "{answers:#?}"
    );
    let slowest = answers.iter().filter_map(|line| line.field("micros").parse::<u64>().ok()).max();
    println!(
        "  {} notifications of a real registry, the slowest answered after {} µs",
        answers.len(),
        slowest.unwrap_or_default()
    );
}

/// Pushes what cosign does when it signs a manifest with a key.
/// <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>
async fn push_signature(base: &str, repository: &str, signed: &str, key: &EcdsaKeyPair) {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": ""},
            "image": {"docker-manifest-digest": signed},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = payload.to_string().into_bytes();
    let signature = key.sign(&SystemRandom::new(), &payload).expect("a signature");
    let config = json!({
        "architecture": "", "os": "", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&payload)]},
    });
    let layer = json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "annotations": {"dev.cosignproject.cosign/signature": STANDARD.encode(signature)},
    });
    let tag = format!("{}.sig", signed.replace(':', "-"));
    let (config, bytes) =
        (json!({"mediaType": "application/vnd.oci.image.config.v1+json"}), config.to_string());
    push_manifest(base, repository, &tag, (config, bytes.as_bytes()), (layer, &payload)).await;
}

/// The public key as cosign writes it.
fn public_key(key: &EcdsaKeyPair) -> String {
    let spki = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").expect("hex");
    let encoded = STANDARD.encode([spki.as_slice(), key.public_key().as_ref()].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{encoded}\n-----END PUBLIC KEY-----\n")
}

/// A signature comes after its image: the object that verifies it has failed by then.
pub fn a_signature_reaches_those_who_verify_it(bed: &Bed) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file.txt"), "content").expect("a file");
    let packed = Command::new("tar").args(["-cz", "-C"]).arg(folder.path()).arg("file.txt").output();
    let content = packed.expect("tar runs").stdout;
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let file = folder.path().join("cosign.pub");
    std::fs::write(&file, public_key(&key)).expect("a file");
    let from_file = format!("--from-file=cosign.pub={}", file.display());
    bed.kubectl(&["create", "secret", "generic", "cosign-pub", "-n", "apps", &from_file]);
    let running = start_flux_recv(bed, folder);
    let (_registry, base) = start_registry(bed, &hook_url(&running, "registry"), &test_key("harbor"));
    let _source_controller = start_source_controller(bed);
    let host = base.trim_start_matches("http://");
    let signed = bed.block_on(push(&base, "fleet/signed", "v1", &content));
    // From here on only the signature can request: the push has arrived, and the time is over in which a watch
    // that was slow to open may bring what it has missed.
    running.wait_for_log("delivery matches no object", &[("detail", "*fleet/signed:v1*")]);
    std::thread::sleep(Duration::from_secs(6));
    let api = "/apis/source.toolkit.fluxcd.io/v1";
    let verify = json!({"provider": "cosign", "secretRef": {"name": "cosign-pub"}});
    for (name, verify) in [("verified", verify), ("not-verified", json!(null))] {
        let spec = json!({
            "url": format!("oci://{host}/fleet/signed"), "ref": {"tag": "v1"}, "insecure": true, "verify": verify,
        });
        create(bed, api, "OCIRepository", "ocirepositories", "apps", name, spec);
    }
    let object = |name: &str| bed.get(&format!("{api}/namespaces/apps/ocirepositories/{name}"));
    let is_verified = || {
        let conditions = object("verified")["status"]["conditions"].clone();
        let condition =
            conditions.as_array()?.iter().find(|condition| condition["type"] == "SourceVerified")?;
        Some(condition["status"] == "True")
    };
    wait_for("the verification to fail", PATIENCE, || is_verified().filter(|is_verified| !is_verified));
    let before = ["verified", "not-verified"].map(|name| requested_at(&object(name)));
    bed.block_on(push_signature(&base, "fleet/signed", &signed, &key));
    wait_for("the request", PATIENCE, || {
        requested_at(&object("verified")).filter(|at| Some(at) != before[0].as_ref())
    });
    wait_for("the verification", PATIENCE, || is_verified().filter(|is_verified| *is_verified));
    wait_for("the artifact", PATIENCE, || {
        let revision = object("verified")["status"]["artifact"]["revision"].as_str().map(str::to_owned);
        revision.filter(|revision| revision.ends_with(&signed))
    });
    let log = running.process.output();
    assert_eq!(requested_at(&object("not-verified")), before[1], "nothing verifies there: {log}");
}
