//! Memory, and the time to the first match.

use std::process::Command;
use std::time::{Duration, Instant};

use flux_recv::internals::Kind;

use super::load::{requests, run};
use super::server::{SERVER_CORE, Server, kubeconfig};
use super::table::{Must, Row, median};

pub fn memory() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, objects, most) in [
        ("resident MB, idle, 1,000 objects", 1000, 16.0),
        ("resident MB, idle, 10,000 objects", 10_000, 24.0),
        ("resident MB, idle, 100,000 objects", 100_000, 64.0),
    ] {
        let api = Server::api_double(objects);
        let receiver = Server::flux_recv(&api).when_it_knows_all_objects();
        std::thread::sleep(Duration::from_secs(2));
        let megabytes = receiver.resident_kib() as f64 * 1024.0 / 1e6;
        println!("{what}: {megabytes:.1}");
        rows.push(Row {
            what,
            figures: format!("{megabytes:.1} MB"),
            value: megabytes,
            must: Must::AtMost(most),
        });
    }
    let api = Server::api_double(1000);
    let receiver = Server::flux_recv(&api).when_it_knows_all_objects().when_it_listens();
    let pushes = requests(&receiver.path(), 1000, false);
    let after = |deliveries: u64| {
        run(&receiver, &pushes, 202, |count, _| count >= deliveries);
        receiver.resident_kib() as f64
    };
    let first = after(100_000);
    let last = after(900_000);
    let figures = format!("{:.1} MB : {:.1} MB", last * 1024.0 / 1e6, first * 1024.0 / 1e6);
    println!("after a million deliveries : after 100,000: {figures}");
    rows.push(Row {
        what: "resident after a million deliveries : after the first 100,000",
        figures,
        value: last / first,
        must: Must::AtMost(1.1),
    });
    rows
}

pub fn start() -> Vec<Row> {
    let api = Server::api_double(10_000);
    let ours = || {
        let started = Instant::now();
        drop(Server::flux_recv(&api).when_it_knows_all_objects());
        started.elapsed().as_secs_f64()
    };
    let list = || {
        let started = Instant::now();
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(std::env::current_exe().expect("a path"));
        let status = command.args(["list-once", &api.port.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
        started.elapsed().as_secs_f64()
    };
    let rounds: Vec<(f64, f64)> = (0..5).map(|_| (ours(), list())).collect();
    let ratio = median(rounds.iter().map(|(ours, list)| ours / list).collect());
    let figures = format!(
        "{:.2} s : {:.2} s",
        median(rounds.iter().map(|round| round.0).collect()),
        median(rounds.iter().map(|round| round.1).collect())
    );
    println!("start to ready to match, 10,000 objects : one full list: {figures}");
    vec![Row {
        what: "start to ready to match with 10,000 objects : one full list with a bare client",
        figures,
        value: ratio,
        must: Must::AtMost(1.5),
    }]
}

/// A process that lists all GitRepositories once with a bare client.
pub fn list_once(port: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config: kube::config::Kubeconfig =
            serde_yaml::from_str(&kubeconfig(port.parse().expect("a port"))).expect("a kubeconfig");
        let config =
            kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a config");
        let client = kube::Client::try_from(config).expect("a client");
        let info = Kind::GitRepository.info();
        let gvk = kube::core::GroupVersionKind::gvk(info.group, "v1", info.name);
        let resource = kube::core::ApiResource::from_gvk_with_plural(&gvk, info.plural);
        let api: kube::Api<kube::core::DynamicObject> = kube::Api::all_with(client, &resource);
        assert_eq!(api.list(&Default::default()).await.expect("a list").items.len(), 10_000);
    });
}
