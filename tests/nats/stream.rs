//! The connection to the servers: over TLS, and with a credentials file.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::publishing::{FOLLOWS, Publisher, publisher_folder, servers};
use super::running::{FluxRecv, stderr};

/// A JWT as NATS has them, signed with an NKey.
fn jwt(issuer: &KeyPair, subject: &str, nats: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let claims = encode(&json!({
        "jti": format!("{:032X}", fastrand::u128(..)), "iat": jiff::Timestamp::now().as_second(),
        "iss": issuer.public_key(), "sub": subject, "name": "test", "nats": nats,
    }));
    let text = format!("{header}.{claims}");
    let signature = issuer.sign(text.as_bytes()).expect("a signature");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The config of servers of one operator and one account, and the credentials file of a user of it.
fn operator_mode() -> (String, String) {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    // JetStream needs one.
    let system = KeyPair::new_account();
    let everything = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let operator_jwt = jwt(&operator, &operator.public_key(), &json!({"type": "operator", "version": 2}));
    let account_nats = json!({"type": "account", "version": 2, "limits": everything, "default_permissions": {"pub": {}, "sub": {}}});
    let account_jwt = jwt(&operator, &account.public_key(), &account_nats);
    let system_jwt = jwt(
        &operator,
        &system.public_key(),
        &json!({"type": "account", "version": 2, "limits": {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1}}),
    );
    let user_nats =
        json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    let user_jwt = jwt(&account, &user.public_key(), &user_nats);
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {system_key}\nresolver: MEMORY\n\
         resolver_preload: {{{}: {account_jwt}, {system_key}: {system_jwt}}}",
        account.public_key(),
        system_key = system.public_key(),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    );
    (config, credentials)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_opens_what_nobody_else_gets() {
    let (config, credentials) = operator_mode();
    let Some(servers) = servers(1, &config) else { return };
    let start = |fields: &str, credentials: &str| {
        let folder = publisher_folder(&format!("urls: [{}], replicas: 1, {fields}", servers.urls()), "");
        std::fs::write(folder.path().join("nats.creds"), credentials).expect("credentials");
        FluxRecv::in_folder(folder, &["--no-cluster", "--subscribe-listen", "127.0.0.1:0"])
    };
    let publisher = Publisher { running: start("credentialsPath: nats.creds", &credentials) };
    publisher.running.wait_for_log(FOLLOWS, &[]);
    publisher.pushed().await;
    assert_eq!(publisher.running.metric("flux_recv_unpublished_entries").await, Some(0.0));
    // Those of another account, and none.
    for forged in [start("credentialsPath: nats.creds", &operator_mode().1), start("stream: flux-recv", "")] {
        let forged = Publisher { running: forged };
        forged.pushed().await;
        assert_eq!(forged.running.metric("flux_recv_unpublished_entries").await, Some(1.0));
        let log = forged.running.log();
        assert!(!log.contains(FOLLOWS) && log.contains("uthorization"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_over_tls_have_to_be_those_of_the_authority() {
    let files = tempfile::tempdir().expect("a folder");
    for name in ["server", "other"] {
        let path = |end: &str| files.path().join(format!("{name}{end}"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=nats", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(path(".key"))
            .arg("-out")
            .arg(path(".pem"))
            .output();
        assert!(made.expect("openssl runs").status.success());
    }
    let path = |name: &str| files.path().join(name).display().to_string();
    let tls = format!("tls: {{cert_file: '{}', key_file: '{}'}}", path("server.pem"), path("server.key"));
    let Some(servers) = servers(1, &tls) else { return };
    let start = |ca: &str| {
        let nats = format!("urls: [{}], replicas: 1, caPath: {}", servers.urls_with("tls"), path(ca));
        Publisher::start(&nats, "", &[])
    };
    let publisher = start("server.pem");
    publisher.running.wait_for_log(FOLLOWS, &[]);
    publisher.pushed().await;
    assert_eq!(publisher.running.metric("flux_recv_unpublished_entries").await, Some(0.0));
    let other = start("other.pem");
    other.pushed().await;
    assert_eq!(other.running.metric("flux_recv_unpublished_entries").await, Some(1.0));
    assert_eq!(other.running.logged(FOLLOWS, &[]), 0, "{}", other.running.log());
    // An authority is named, so nothing is spoken in the clear, whatever the URL and the server say.
    let Some(plain) = super::publishing::servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1, caPath: {}", plain.urls(), path("server.pem"));
    let stripped = Publisher::start(&nats, "", &[]);
    stripped.pushed().await;
    assert_eq!(stripped.running.metric("flux_recv_unpublished_entries").await, Some(1.0));
    assert!(plain.stream("flux-recv").is_none(), "{}", stripped.running.log());
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_fix() {
    for (nats, mistake) in [
        ("stream: a", "urls: is missing; list the servers, like nats://nats.nats:4222"),
        ("urls: ['https://nats:4222']", "urls: has a URL with another scheme than nats:// or tls://"),
        (
            "urls: ['nats://ann:pass-word@nats:4222']",
            "urls: has a URL with a name or password; use `credentialsPath`",
        ),
        (
            "urls: ['nats://nats'], stream: 'a.b'",
            "stream: `a.b` is not a name of letters, digits, `-` and `_`",
        ),
        ("urls: ['nats://nats'], replicas: 7", "replicas: is 7; a stream has 1 to 5"),
        ("urls: ['nats://nats'], nkeyPath: signing.pem", "is not the seed of a user, which begins with SU"),
        (
            "urls: ['nats://nats'], nkeyPath: signing.pem, credentialsPath: signing.pem",
            "stands beside `credentialsPath`",
        ),
        ("urls: ['nats://nats'], caPath: missing", "caPath: cannot read"),
    ] {
        let folder = publisher_folder(nats, "");
        let file = folder.path().join("fluxrecv.yaml");
        let output =
            super::running::flux_recv().args(["check", "--no-cluster", "--config"]).arg(&file).output();
        let text = stderr(&output.expect("it runs"));
        assert!(text.contains("publish: nats: ") && text.contains(mistake), "{mistake} in {text}");
        assert!(!text.contains("pass-word"), "{text}");
    }
}
