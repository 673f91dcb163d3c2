//! A kube-apiserver with etcd, Flux's CRDs installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, free_port, wait_for};

/// The built parts.
pub struct Parts {
    pub cache: PathBuf,
    /// kube-apiserver, etcd and kubectl.
    assets: PathBuf,
}

impl Parts {
    /// The parts, or the first that is missing. `KUBEBUILDER_ASSETS` names a folder with another
    /// kube-apiserver, etcd and kubectl.
    pub fn find() -> Result<Parts, String> {
        let cache = std::env::var_os("FLUX_RECV_TESTBED").map(PathBuf::from).unwrap_or_else(|| {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            base.unwrap_or_else(home).join("flux-recv/testbed")
        });
        let assets =
            std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).unwrap_or_else(|| cache.join("bin"));
        let mut needed: Vec<PathBuf> =
            ["kube-apiserver", "etcd", "kubectl"].map(|name| assets.join(name)).to_vec();
        needed.extend(
            [
                "bin/source-controller",
                "bin/notification-controller",
                "bin/registry",
                "bin/gitea",
                "bin/nats-server",
                "bin/helm",
                "bin/helm-docs",
                "crds",
                "manifests/kustomize-controller",
            ]
            .map(|name| cache.join(name)),
        );
        match needed.iter().find(|part| !part.exists()) {
            Some(part) => Err(part.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            None => Ok(Parts { cache, assets }),
        }
    }

    fn asset(&self, name: &str) -> Command {
        Command::new(self.assets.join(name))
    }
}

/// A running cluster.
pub struct Bed {
    pub parts: Parts,
    pub folder: tempfile::TempDir,
    pub server: String,
    api_server: Mutex<Process>,
    api_port: u16,
    etcd_url: String,
    _etcd: Process,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

/// Signs the tokens of ServiceAccounts; a key for tests and nothing else.
const SIGNING_KEY: &str = include_str!("../fixtures/rsa-key-for-tests-only.pem");
pub const ADMIN_TOKEN: &str = "test-admin-token";
/// An API server that has just started asks to come again a second later.
const MAX_RETRIES: usize = 30;

const SUITE_CLIENT: &str = "cluster-suite";
const NAMESPACES: [&str; 4] = ["flux-system", "apps", "team-a", "team-b"];

fn start_api_server(parts: &Parts, folder: &Path, etcd_url: &str, port: u16) -> Process {
    let path = |name: &str| folder.join(name);
    Process::spawn(
        parts
            .asset("kube-apiserver")
            .args(["--etcd-servers", etcd_url, "--bind-address", "127.0.0.1"])
            .args(["--secure-port", &port.to_string(), "--authorization-mode", "RBAC"])
            .args([
                "--service-account-issuer",
                "https://kubernetes",
                "--service-cluster-ip-range",
                "10.0.0.0/24",
            ])
            .args(["--disable-admission-plugins", "ServiceAccount", "--cert-dir"])
            .arg(path("certs"))
            .arg("--service-account-key-file")
            .arg(path("sa.key"))
            .arg("--service-account-signing-key-file")
            .arg(path("sa.key"))
            .arg("--token-auth-file")
            .arg(path("tokens.csv"))
            .arg("--audit-policy-file")
            .arg(path("audit.yaml"))
            .arg("--audit-log-path")
            .arg(path("audit.log")),
        &path("kube-apiserver.log"),
    )
}

impl Bed {
    pub fn start(parts: Parts) -> Bed {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let (etcd_port, peer_port, api_port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = Process::spawn(
            parts
                .asset("etcd")
                .arg("--data-dir")
                .arg(path("etcd"))
                .args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &format!("default={peer_url}")])
                .args(["--unsafe-no-fsync", "--log-level", "error"]),
            &path("etcd.log"),
        );
        std::fs::write(path("sa.key"), SIGNING_KEY).expect("a key");
        std::fs::write(path("tokens.csv"), format!("{ADMIN_TOKEN},admin,1,system:masters\n"))
            .expect("tokens");
        std::fs::write(path("audit.yaml"), "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n")
            .expect("a policy");
        let mut api_server = start_api_server(&parts, folder.path(), &etcd_url, api_port);
        let certificate = path("certs").join("apiserver.crt");
        wait_for("the API server's certificate", Duration::from_secs(60), || {
            api_server.assert_runs();
            certificate.exists().then_some(())
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        // The file holds the server's certificate and the CA that has signed it.
        let chain = wait_for("a whole certificate", Duration::from_secs(10), || {
            let chain = reqwest::Certificate::from_pem_bundle(&std::fs::read(&certificate).ok()?).ok()?;
            (chain.len() == 2).then_some(chain)
        });
        let client = reqwest::Client::builder().user_agent(SUITE_CLIENT).tls_certs_only(chain);
        let client = client.build().expect("a client");
        let server = format!("https://127.0.0.1:{api_port}");
        let api_server = Mutex::new(api_server);
        let bed = Bed { parts, folder, server, api_server, api_port, etcd_url, _etcd: etcd, runtime, client };
        std::fs::write(bed.path("admin.kubeconfig"), bed.kubeconfig(ADMIN_TOKEN, "default"))
            .expect("a kubeconfig");
        bed.wait_for_api_server();
        bed.install_crds();
        for namespace in NAMESPACES {
            bed.create("/api/v1/namespaces", &serde_json::json!({"metadata": {"name": namespace}}));
        }
        bed
    }

    fn wait_for_api_server(&self) {
        wait_for("the API server", Duration::from_secs(60), || {
            self.api_server.lock().unwrap_or_else(PoisonError::into_inner).assert_runs();
            self.try_get("/readyz").ok()
        });
    }

    /// Ends the API server at once, as a power cut does.
    pub fn stop_api_server(&self) {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }

    /// Starts it again, over the same etcd.
    pub fn start_api_server(&self) {
        *self.api_server.lock().unwrap_or_else(PoisonError::into_inner) =
            start_api_server(&self.parts, self.folder.path(), &self.etcd_url, self.api_port);
        self.wait_for_api_server();
    }

    fn install_crds(&self) {
        let cache = &self.parts.cache;
        let folders =
            ["crds", "manifests/gateway-api", "manifests/flux-operator", "manifests/kustomize-controller"];
        for folder in folders {
            self.kubectl(&["apply", "--server-side", "-f", &cache.join(folder).display().to_string()]);
        }
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kubeconfig for a token, with a namespace of its own.
    pub fn kubeconfig(&self, token: &str, namespace: &str) -> String {
        let certificate = self.path("certs/apiserver.crt");
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{}\", certificate-authority: {}}}}}]\n\
             users: [{{name: test, user: {{token: {token}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test, namespace: {namespace}}}}}]\n",
            self.server,
            certificate.display()
        )
    }

    /// Runs kubectl as cluster-admin; fails with its words.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|err| panic!("kubectl {arguments:?}: {err}"))
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self
            .parts
            .asset("kubectl")
            .arg("--kubeconfig")
            .arg(self.path("admin.kubeconfig"))
            .args(arguments)
            .output();
        let output = output.expect("kubectl runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Builds a kustomization.
    pub fn kustomize(&self, folder: &Path) -> String {
        self.kubectl(&[
            "kustomize",
            "--load-restrictor",
            "LoadRestrictionsNone",
            &folder.display().to_string(),
        ])
    }

    /// Applies `kustomization/`, unless it is there.
    pub fn install_manifests(&self) {
        let account = "/api/v1/namespaces/flux-system/serviceaccounts/flux-recv";
        if self.try_get(account).is_err() {
            let file = self.path("manifests.yaml");
            let kustomization = Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization");
            std::fs::write(&file, self.kustomize(&kustomization)).expect("manifests");
            self.kubectl(&["apply", "-f", &file.display().to_string()]);
        }
    }

    /// A token of a ServiceAccount, as a Pod would get it.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        self.kubectl(&["create", "token", account, "-n", namespace]).trim().to_owned()
    }

    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|err| panic!("GET {path}: {err}"))
    }

    pub fn try_get(&self, path: &str) -> Result<Value, String> {
        self.request(reqwest::Method::GET, path, None)
    }

    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.request(reqwest::Method::POST, path, Some(("application/json", object)))
            .unwrap_or_else(|err| panic!("POST {path}: {err}"))
    }

    pub fn merge(&self, path: &str, patch: &Value) -> Value {
        self.request(reqwest::Method::PATCH, path, Some(("application/merge-patch+json", patch)))
            .unwrap_or_else(|err| panic!("PATCH {path}: {err}"))
    }

    /// Sends a merge patch with another token; gives the status.
    pub fn patch_as(&self, token: &str, path: &str, patch: &Value) -> u16 {
        let request = self.client.patch(format!("{}{path}", self.server)).bearer_auth(token);
        let request = request.header("Content-Type", "application/merge-patch+json").body(patch.to_string());
        self.block_on(async { request.send().await.expect("an answer").status().as_u16() })
    }

    pub fn delete(&self, path: &str) {
        self.request(reqwest::Method::DELETE, path, None)
            .unwrap_or_else(|err| panic!("DELETE {path}: {err}"));
    }

    fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, String> {
        self.runtime.block_on(async {
            let send = || {
                let mut request = self
                    .client
                    .request(method.clone(), format!("{}{path}", self.server))
                    .bearer_auth(ADMIN_TOKEN);
                if let Some((content_type, body)) = body {
                    request = request.header("Content-Type", content_type).body(body.to_string());
                }
                request.send()
            };
            let mut response = send().await.map_err(|err| err.to_string())?;
            for _ in 0..MAX_RETRIES {
                if response.status() != reqwest::StatusCode::TOO_MANY_REQUESTS {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                response = send().await.map_err(|err| err.to_string())?;
            }
            let status = response.status();
            let text = response.text().await.map_err(|err| err.to_string())?;
            match status.is_success() {
                true => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
                false => Err(format!("{status}: {text}")),
            }
        })
    }

    /// Runs asynchronous code of a scenario.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Runs asynchronous code beside a scenario.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(future)
    }

    /// The requests in the audit log whose user agent is flux-recv's client and whose token is the
    /// given ServiceAccount's, as `verb resource`.
    pub fn requests_of(&self, account: &str) -> Vec<String> {
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named =
            |event: &Value| format!("{} {}", part(&event["verb"]), part(&event["objectRef"]["resource"]));
        self.audited(account).iter().map(named).collect()
    }

    /// The names of the clients that used this ServiceAccount's token, by the audit log; without the suite's own.
    pub fn clients_of(&self, account: &str) -> std::collections::BTreeSet<String> {
        let events = self.audited(account);
        let clients = events.iter().map(|event| event["userAgent"].as_str().unwrap_or_default());
        clients.filter(|client| *client != SUITE_CLIENT).map(str::to_owned).collect()
    }

    fn audited(&self, account: &str) -> Vec<Value> {
        let user = format!("system:serviceaccount:flux-system:{account}");
        let log = std::fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["user"]["username"] == user.as_str()).collect()
    }
}
