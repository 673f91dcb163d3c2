//! A real Gitea with one user.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::process::{Process, free_port, wait_for};

pub struct Gitea {
    pub base: String,
    folder: tempfile::TempDir,
    _process: Process,
}

pub const USER: &str = "tester";
const PASSWORD: &str = "test-password-1";

impl Gitea {
    pub fn start(bed: &Bed) -> Gitea {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let base = format!("http://127.0.0.1:{port}");
        let work = folder.path().display();
        let static_files = bed.parts.cache.join("gitea");
        let run_user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let ini = format!(
            "RUN_USER = {run_user}\nWORK_PATH = {work}\n\
             [server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = {base}/\nSTATIC_ROOT_PATH = {}\nDISABLE_SSH = true\nOFFLINE_MODE = true\n\
             [database]\nDB_TYPE = sqlite3\nPATH = {work}/gitea.db\n\
             [repository]\nROOT = {work}/repositories\n\
             [security]\nINSTALL_LOCK = true\n\
             [webhook]\nALLOWED_HOST_LIST = loopback\n\
             [log]\nLEVEL = Warn\n",
            static_files.display()
        );
        let config = folder.path().join("app.ini");
        std::fs::write(&config, ini).expect("app.ini");
        let gitea = |arguments: &[&str]| {
            let mut command = Command::new(bed.parts.cache.join("bin/gitea"));
            command.arg("--config").arg(&config).args(arguments);
            command
                .env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true")
                .env("USER", &run_user)
                .env("HOME", folder.path());
            command
        };
        run(&mut gitea(&["migrate"]));
        run(&mut gitea(&[
            "admin",
            "user",
            "create",
            "--username",
            USER,
            "--password",
            PASSWORD,
            "--email",
            "tester@example.com",
            "--admin",
            "--must-change-password=false",
        ]));
        let process = Process::spawn(&mut gitea(&["web"]), &folder.path().join("log"));
        let gitea = Gitea { base, folder, _process: process };
        wait_for("Gitea", Duration::from_secs(60), || {
            bed.block_on(gitea.try_api("GET", "/version", None)).ok()
        });
        gitea
    }

    pub fn api(&self, bed: &Bed, method: &str, path: &str, body: Value) -> Value {
        bed.block_on(self.try_api(method, path, Some(body)))
            .unwrap_or_else(|err| panic!("{method} {path}: {err}"))
    }

    async fn try_api(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let method = method.parse::<reqwest::Method>().expect("a method");
        let mut request = reqwest::Client::new()
            .request(method, format!("{}/api/v1{path}", self.base))
            .basic_auth(USER, Some(PASSWORD));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|err| err.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|err| err.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Makes a token that may do everything.
    pub fn token(&self, bed: &Bed, name: &str) -> String {
        let token =
            self.api(bed, "POST", &format!("/users/{USER}/tokens"), json!({"name": name, "scopes": ["all"]}));
        token["sha1"].as_str().expect("a token").to_owned()
    }

    /// Makes a repository of the user or of an organization, and a clone of it.
    pub fn repository_without_webhook(&self, bed: &Bed, owner: &str, name: &str) -> Clone {
        let path = if owner == USER { "/user/repos".to_owned() } else { format!("/orgs/{owner}/repos") };
        let repository = json!({"name": name, "auto_init": true, "default_branch": "main"});
        self.api(bed, "POST", &path, repository);
        self.clone_of(owner, name)
    }

    /// Makes a repository with a webhook, and a clone of it.
    pub fn repository(&self, bed: &Bed, name: &str, hook: &str, secret: &str) -> Clone {
        let clone = self.repository_without_webhook(bed, USER, name);
        let hook = json!({
            "type": "gitea",
            "active": true,
            "events": ["push", "create", "delete", "pull_request", "pull_request_sync"],
            "config": {"url": hook, "content_type": "json", "secret": secret},
        });
        self.api(bed, "POST", &format!("/repos/{USER}/{name}/hooks"), hook);
        clone
    }

    fn clone_of(&self, owner: &str, name: &str) -> Clone {
        let url = self.base.replace("http://", &format!("http://{USER}:{PASSWORD}@"));
        let folder = self.folder.path().join("clones").join(owner).join(name);
        run(Command::new("git")
            .args(["clone", "--quiet", &format!("{url}/{owner}/{name}.git")])
            .arg(&folder));
        Clone { folder }
    }
}

/// A clone of a repository.
pub struct Clone {
    folder: PathBuf,
}

impl Clone {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.com"];
        run(Command::new("git").arg("-C").arg(&self.folder).args(identity).args(arguments))
    }

    /// Commits a change; gives the commit's ID.
    pub fn commit(&self, text: &str) -> String {
        std::fs::write(Path::new(&self.folder).join("file.txt"), text).expect("a file");
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--message", text]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|err| panic!("cannot run {command:?}: {err}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
