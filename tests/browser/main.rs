//! The page for operators in a real browser: Debian's chromium and chromedriver. Where they are not installed it says
//! so in one line.

#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod webdriver;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::leaks;
use common::running::{FluxRecv, flux_recv, folder};
use serde_json::Value;
use webdriver::{Browser, chromedriver};

const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: github.key}
- {source: Harbor, keyPath: harbor.key}
- {name: team-a, source: GitHub, keyPath: team.key, namespaces: team-a}
";

const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: shop, namespace: shop}
spec: {url: https://github.com/example-org/shop, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: shop-next, namespace: shop}
spec: {url: https://github.com/example-org/shop, ref: {branch: next}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: frozen, namespace: shop}
spec: {url: https://github.com/example-org/frozen, ref: {branch: main}, suspend: true}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata: {name: manifests, namespace: shop}
spec: {url: oci://harbor.example.com/shop/manifests, ref: {tag: latest}}
";

const SHOP: &str = "https://github.com/example-org/shop";

fn send(running: &FluxRecv, arguments: &[&str]) {
    let config = running.folder.path().join("fluxrecv.yaml").display().to_string();
    let output = flux_recv()
        .args(["send", "--config", &config, "--to", &running.base])
        .args(arguments)
        .output()
        .expect("send runs");
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the page says something.
async fn wait_for_text(browser: &Browser, wanted: &str) {
    let started = Instant::now();
    loop {
        let text = browser.text().await;
        if text.contains(wanted) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no {wanted:?} in:\n{text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Where the pictures of this run are kept.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The picture of the documents; `FLUX_RECV_BLESS` takes it anew.
fn picture_of_documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page.png")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_in_a_browser() {
    let Some(driver) = chromedriver() else {
        assert!(std::env::var("CI").is_err(), "chromedriver is not installed");
        println!("skipped: chromedriver is not installed (Debian: chromium chromium-driver)");
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = folder(CONFIG);
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("objects.yaml"), OBJECTS).expect("objects");
    let manifests = manifests.display().to_string();
    let running = FluxRecv::in_folder(folder, &["--manifests", &manifests, "--allow-request-again"]);
    let page = running.debug();
    let browser = Browser::start(&driver).await;
    send(&running, &["--endpoint", "github", "--repo", SHOP]);
    send(&running, &["--endpoint", "github", "--repo", SHOP, "--ref", "topic"]);
    send(&running, &["--endpoint", "harbor", "--image", "harbor.example.com/shop/manifests:latest"]);
    send(&running, &["--endpoint", "team-a", "--repo", SHOP]);
    browser.set_width(1400).await;
    browser.open(&page).await;
    let text = browser.text().await;
    for part in [
        "What needs someone",
        "Endpoint team-a: the last delivery was unmatched",
        "github-0",
        "OCIRepository/shop/manifests",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }

    // One unmatched delivery, explained.
    browser.click("a[href='/delivery/team-a-3']").await;
    wait_for_text(&browser, "Why these objects").await;
    let text = browser.text().await;
    assert!(text.contains("endpoint team-a is limited to namespaces team-a"), "{text}");
    assert!(text.contains("\"outcome\": \"unmatched\""), "text to copy: {text}");

    // Search, with the keyboard alone.
    browser.open(&page).await;
    browser.press("\u{e004}").await;
    let focused = browser.script("return document.activeElement.textContent").await;
    assert_eq!(focused, "Skip to the content");
    browser.type_into("#q", "manifests\u{e007}").await;
    wait_for_text(&browser, "harbor-2").await;
    let text = browser.script("return document.getElementById('deliveries').innerText").await;
    assert!(!text.as_str().is_some_and(|text| text.contains("github-0")), "{text}");

    // Live: the page changes without being loaded again, and a branch is text whatever it is called.
    browser.open(&page).await;
    browser.script("window.loadedOnce = true").await;
    send(
        &running,
        &["--endpoint", "github", "--repo", SHOP, "--ref", "refs/heads/<script>alert(1)</script>"],
    );
    wait_for_text(&browser, "none tracks branch <script>alert(1)</script>").await;
    assert_eq!(browser.script("return window.loadedOnce").await, Value::Bool(true));
    assert!(!browser.has_dialog().await);
    assert_eq!(browser.script("return document.querySelectorAll('#live script').length").await, 0);

    // Both widths and themes; contrast is AA, and nothing is wider than the window.
    for theme in ["light", "dark"] {
        browser.set_theme(theme).await;
        for width in [420, 1400] {
            browser.set_width(width).await;
            browser.open(&page).await;
            let overflow =
                browser.script("return document.documentElement.scrollWidth - window.innerWidth").await;
            assert!(overflow.as_f64().is_some_and(|pixels| pixels <= 0.0), "{width}: {overflow}");
            let picture = browser.picture().await;
            std::fs::write(pictures().join(format!("{theme}-{width}.png")), &picture).expect("a picture");
            if (theme, width) == ("light", 1400) && std::env::var_os("FLUX_RECV_BLESS").is_some() {
                std::fs::write(picture_of_documents(), &picture).expect("a picture");
            }
        }
        let colours = browser.script(COLOURS).await;
        for pair in colours.as_array().expect("a list") {
            let ratio = contrast(&pair[1], &pair[2]);
            assert!(ratio >= 4.5, "{theme}: {} has {ratio:.2}", pair[0]);
        }
    }
    assert!(picture_of_documents().exists(), "take it with FLUX_RECV_BLESS=1");

    // Landmarks, labels and names for those who do not see the page.
    let unnamed = browser
        .script(
            "return [...document.querySelectorAll('input, select, [role=region], [role=img], section, nav')].filter(e => \
             !e.labels?.length && !e.ariaLabel && !e.hasAttribute('aria-labelledby')).map(e => e.outerHTML)",
        )
        .await;
    assert_eq!(unnamed.as_array().map(Vec::len), Some(0), "{unnamed}");
    for landmark in ["header", "nav", "main", "footer", "html[lang]", "form[role=search]"] {
        browser.find(landmark).await;
    }

    // The button does what it says.
    browser.open(&format!("{page}/delivery/github-0")).await;
    browser.click("form[action='/delivery/github-0/request-again'] button").await;
    wait_for_text(&browser, "Why these objects").await;
    running.wait_for_log("requested again from the page", &[("delivery", "github-0")]);

    // Complete without JavaScript.
    browser.devtools("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": true})).await;
    browser.open(&format!("{page}/delivery/github-1")).await;
    let source = browser.script("return document.documentElement.outerHTML").await;
    let source = source.as_str().unwrap_or_default();
    assert!(source.contains("none tracks branch topic") && source.contains("GitRepository/shop/shop-next"));
    assert_eq!(leaks::find(source, running.folder.path()), None);
    browser.end().await;
}

/// Text and background of one element of each kind.
const COLOURS: &str = "
const background = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!c.endsWith(', 0)')) return c } return 'rgb(255, 255, 255)' };
return ['body', 'a', '.bad', '.good', '.muted', 'th', 'td', 'label', 'button', 'pre'].map(s => [s, document.querySelector(s)]).filter(([, e]) => e)
  .map(([s, e]) => [s, getComputedStyle(e).color, background(e)])";

/// The contrast of two colours. <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>
fn contrast(text: &Value, background: &Value) -> f64 {
    let luminance = |colour: &Value| {
        let numbers = colour.as_str().unwrap_or_default();
        let channels: Vec<f64> = numbers
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .take(3)
            .map(|channel: f64| {
                let channel = channel / 255.0;
                if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
            })
            .collect();
        let [red, green, blue] = channels[..] else { panic!("{colour} is not a colour") };
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(text), luminance(background));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}
