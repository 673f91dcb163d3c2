//! A real browser, driven over WebDriver. <https://www.w3.org/TR/webdriver2/>

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::common::process::{Process, free_port, wait_for};

/// Debian's chromedriver, where it is installed.
pub fn chromedriver() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("chromedriver")).find(|file| file.exists())
}

/// A browser with one window.
pub struct Browser {
    session: String,
    client: reqwest::Client,
    _driver: Process,
    _profile: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Browser {
    pub async fn start(driver: &Path) -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let log = profile.path().join("chromedriver.log");
        let process = Process::spawn(Command::new(driver).arg(format!("--port={port}")), &log);
        wait_for("chromedriver", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        let folder = profile.path().join("profile");
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--user-data-dir={}", folder.display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let answer = client.post(format!("{url}/session")).json(&wanted).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}"));
        Browser { session: format!("{url}/session/{id}"), client, _driver: process, _profile: profile }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(format!("{}{path}", self.session)).json(&body).send().await;
        let answer: Value = answer.expect("an answer").json().await.expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{path} {body}: {answer}");
        answer["value"].clone()
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Runs a script as the driver does, also where the page itself may not.
    pub async fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// What is on the page as a person reads it.
    pub async fn text(&self) -> String {
        let text = self.script("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn find(&self, selector: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
        let id = found.as_object().and_then(|fields| fields.values().next());
        id.and_then(Value::as_str).unwrap_or_else(|| panic!("{found}")).to_owned()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Presses a key, as a person without a mouse does.
    pub async fn press(&self, key: &str) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}))
            .await;
    }

    /// A command of the browser's own protocol, for what WebDriver has no words for.
    pub async fn devtools(&self, command: &str, parameters: Value) {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await;
    }

    pub async fn set_theme(&self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    pub async fn set_width(&self, width: u32) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// A picture of the window, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let answer = self.client.get(format!("{}/screenshot", self.session)).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        STANDARD.decode(answer["value"].as_str().expect("a picture")).expect("base64")
    }

    /// Whether a dialog is open, as `alert` opens one.
    pub async fn has_dialog(&self) -> bool {
        let answer = self.client.get(format!("{}/alert/text", self.session)).send().await.expect("an answer");
        answer.status().is_success()
    }

    pub async fn end(self) {
        let _ = self.client.delete(&self.session).send().await;
    }
}
