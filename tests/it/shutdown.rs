//! Instances that follow one another: nothing that is sent meanwhile is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;

use super::http::push;
use super::running::{CONFIG, FluxRecv, OBJECTS, client, folder, hub_signature, test_key};

/// Where a connection goes: the public listener and the probe of an instance.
type Backends = Arc<RwLock<Vec<(String, String)>>>;

/// A proxy as kube-proxy is one: a new connection goes to an instance whose last probe was good.
async fn proxy(backends: Backends) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let ready: Backends = Arc::default();
    let (probed, all) = (Arc::clone(&ready), Arc::clone(&backends));
    tokio::spawn(async move {
        loop {
            let mut good = Vec::new();
            for (public, admin) in all.read().await.iter() {
                let probe = client().get(format!("{admin}/readyz")).timeout(Duration::from_millis(500));
                if probe.send().await.is_ok_and(|answer| answer.status().is_success()) {
                    good.push((public.clone(), admin.clone()));
                }
            }
            *probed.write().await = good;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::spawn(async move {
        for number in 0_usize.. {
            let Ok((mut inbound, _)) = listener.accept().await else { return };
            let ready = Arc::clone(&ready);
            tokio::spawn(async move {
                let backends = ready.read().await.clone();
                let Some((public, _)) = backends.get(number % backends.len().max(1)) else { return };
                if let Ok(mut outbound) = TcpStream::connect(public).await {
                    let _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
                }
            });
        }
    });
    address
}

fn start() -> FluxRecv {
    let folder = folder(CONFIG);
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("objects.yaml"), OBJECTS).expect("objects");
    let manifests = manifests.display().to_string();
    FluxRecv::in_folder(folder, &["--manifests", &manifests, "--shutdown-delay", "1500ms"])
}

fn backend(running: &FluxRecv) -> (String, String) {
    (running.base.trim_start_matches("http://").to_owned(), running.admin.clone())
}

// The attack is a rollout: SIGTERM refused connections at once, and GitHub never sends again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_refuses_no_delivery() {
    let mut instances = vec![start(), start()];
    let path = instances[0].path("github");
    let backends: Backends = Arc::new(RwLock::new(instances.iter().map(backend).collect()));
    let url = format!("http://{}{path}", proxy(Arc::clone(&backends)).await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (stop, sent, refused) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (stop, sent, refused, url) =
                (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&refused), url.clone());
            tokio::spawn(async move {
                let signature = hub_signature(&test_key("github"), &push());
                // Half of the providers keep their connections.
                let kept = client();
                while !stop.load(Ordering::Relaxed) {
                    let client = if number % 2 == 0 { kept.clone() } else { client() };
                    let request = client.post(&url).header("X-GitHub-Event", "push");
                    let request = request.header("X-Hub-Signature-256", &signature).body(push());
                    let accepted = request.send().await.is_ok_and(|answer| answer.status() == 202);
                    sent.fetch_add(1, Ordering::Relaxed);
                    refused.fetch_add(usize::from(!accepted), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let next = start();
        backends.write().await.push(backend(&next));
        tokio::time::sleep(Duration::from_millis(400)).await;
        let mut old = instances.remove(0);
        let began = Instant::now();
        let ended = tokio::task::spawn_blocking(move || old.terminate());
        assert_eq!(ended.await.expect("a thread"), Some(0));
        assert!(began.elapsed() > Duration::from_millis(1400), "it waits for the load balancers");
        backends.write().await.remove(0);
        instances.push(next);
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("a task");
    }
    assert_eq!(refused.load(Ordering::Relaxed), 0, "of {}", sent.load(Ordering::Relaxed));
    assert!(sent.load(Ordering::Relaxed) > 200);
}

#[tokio::test]
async fn a_second_signal_skips_the_delay() {
    let running = start();
    let began = Instant::now();
    running.signal("-TERM");
    running.wait_for_log("shutting down: not ready, still accepting deliveries", &[]);
    assert_eq!(running.get_admin("/readyz").await.0, 503);
    let signature = hub_signature(&test_key("github"), &push());
    let request = client().post(format!("{}{}", running.base, running.path("github"))).body(push());
    let request = request.header("X-GitHub-Event", "push").header("X-Hub-Signature-256", signature);
    let answer = request.send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["connection"]),
        (202, &"close".parse().expect("a value"))
    );
    running.signal("-TERM");
    running.wait_for_log("shutting down: draining pending reconcile requests", &[]);
    assert!(began.elapsed() < Duration::from_millis(1400));
}
