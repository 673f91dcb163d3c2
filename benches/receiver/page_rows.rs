//! What the page for operators costs where it is served and nobody looks.

use std::time::Duration;

use super::instruction_rows::{ARGUMENTS, REPOSITORIES, Sent, per_delivery};
use super::load::SHORT;
use super::server::{Server, kubeconfig, measured};
use super::table::{Must, Row, median};

const SERVED: [&str; 2] = ["--debug-listen", "127.0.0.1:0"];
const NOT_SERVED: [&str; 2] = ["--debug-listen", "none"];

pub fn page() -> Vec<Row> {
    vec![memory(), instructions()]
}

fn memory() -> Row {
    let api = Server::api_double(1000);
    let resident = |page: &[&str]| {
        let receiver = Server::flux_recv_with(&kubeconfig(api.port), page).when_it_knows_all_objects();
        std::thread::sleep(Duration::from_secs(2));
        receiver.resident_kib() as f64 * 1024.0 / 1e6
    };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        with.push(resident(&SERVED));
        without.push(resident(&NOT_SERVED));
    }
    let (with, without) = (median(with), median(without));
    let what = "resident MB with the page : without it";
    let figures = format!("{with:.2} MB : {without:.2} MB");
    println!("{what}: {figures}");
    Row { what, figures, value: with - without, must: Must::AtMost(0.5) }
}

fn instructions() -> Row {
    let api = Server::api_double(REPOSITORIES);
    let count = |page: &[&str]| {
        let arguments = [ARGUMENTS.as_slice(), page].concat();
        per_delivery(&measured(), &api, Sent::Push(SHORT), 202, &arguments)
    };
    let (with, without) = (count(&SERVED), count(&NOT_SERVED));
    let what = "instructions per push of 1 KiB with the page : without it";
    let figures = format!("{with:.0} : {without:.0}");
    println!("{what}: {figures}");
    Row { what, figures, value: with / without, must: Must::AtMost(1.02) }
}
