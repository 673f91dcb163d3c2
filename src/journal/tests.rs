use std::io;

use parking_lot::Mutex;

use super::contents::JournalOrigin;
use super::store::{CommitError, JOURNAL_FILE, JournalFolder};
use super::*;
use crate::flux::{Kind, Target};

fn target(name: &str) -> Target {
    Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: name.to_owned() }
}

fn open(folder: &std::path::Path) -> (Journal, Contents) {
    Journal::open(Box::new(JournalFolder::new(folder)), Metrics::new()).expect("a journal")
}

fn refused(folder: &std::path::Path) -> String {
    match Journal::open(Box::new(JournalFolder::new(folder)), Metrics::new()) {
        Ok(_) => panic!("the journal opens"),
        Err(err) => err.to_string(),
    }
}

async fn commit(journal: &Journal, changes: Vec<JournalChange>) -> Result<(), NotDurable> {
    journal.write(changes).expect("a journal that keeps").wait_until_durable().await
}

#[tokio::test]
async fn what_was_kept_is_there_for_the_next_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, left) = open(folder.path());
    assert_eq!(left, Contents::default());
    let number = journal.new_number();
    let changes = vec![
        JournalChange::AddPending(target("a"), 1),
        JournalChange::AddPending(target("b"), 7),
        JournalChange::AddDelivery(number, b"an event".to_vec()),
    ];
    assert_eq!(commit(&journal, changes).await, Ok(()));
    // An old round that ends late takes nothing of a newer one away.
    journal.write_later([
        JournalChange::RemovePending(target("a"), 1),
        JournalChange::RemovePending(target("b"), 6),
        JournalChange::CaughtUp,
    ]);
    journal.close().await;
    let (journal, left) = open(folder.path());
    assert_eq!(left.origin, JournalOrigin::Restored);
    assert_eq!(left.pending.into_iter().collect::<Vec<_>>(), [(target("b"), 7)]);
    assert_eq!(left.deliveries.into_iter().collect::<Vec<_>>(), [(number, b"an event".to_vec())]);
    assert!(journal.new_number() > number, "numbers are not used twice");
    journal.close().await;
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(folder.path());
    let why = refused(folder.path());
    assert!(why.contains("in use by another process") && why.contains("--journal"), "{why}");
    journal.close().await;
    open(folder.path());
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, _) = open(folder.path());
    journal.close().await;
    {
        let database = redb::Database::create(folder.path().join(JOURNAL_FILE)).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        transaction
            .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
            .expect("a table")
            .insert("format", 2)
            .expect("an insertion");
        transaction.commit().expect("a commit");
    }
    let why = refused(folder.path());
    assert!(why.contains("written by a newer flux-recv (format 2, this one knows 1)"), "{why}");
}

/// Whatever was done to the file, the journal opens, puts it aside whole, and says that it knows
/// nothing; or what it reads is what was written.
#[tokio::test]
async fn a_corrupt_file_is_put_aside_and_never_used() {
    let (mut aside, mut whole) = (0, 0);
    for seed in 0..60 {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = open(folder.path());
        let many =
            (0..200).map(|at| JournalChange::AddPending(target(&format!("object-{at}")), at + 1)).collect();
        assert_eq!(commit(&journal, many).await, Ok(()));
        journal.close().await;
        let file = folder.path().join(JOURNAL_FILE);
        let mut bytes = std::fs::read(&file).expect("a file");
        let mut random = fastrand::Rng::with_seed(seed);
        match seed {
            0 => bytes.clear(),
            1 => bytes.truncate(100),
            2 => bytes = b"not a database".to_vec(),
            _ => {
                // Most of a fresh file is empty; what counts is at its beginning.
                let at = random.usize(..60_000);
                random.fill(&mut bytes[at..at + 1024]);
            }
        }
        std::fs::write(&file, &bytes).expect("a write");
        let (journal, left) = open(folder.path());
        match left.origin {
            JournalOrigin::Corrupt => {
                aside += 1;
                assert_eq!(left.pending.len(), 0);
                let kept_aside =
                    std::fs::read(folder.path().join("journal.redb.corrupt-1")).expect("the old file");
                assert_eq!(kept_aside.len(), bytes.len());
            }
            _ => {
                whole += 1;
                assert_eq!(left.pending.len(), 200, "seed {seed}");
                assert!(left.pending.iter().all(|(target, at)| target.name == format!("object-{}", at - 1)));
            }
        }
        assert_eq!(commit(&journal, vec![JournalChange::AddPending(target("new"), 1)]).await, Ok(()));
        journal.close().await;
    }
    assert!(aside > 10, "{aside} of 60 were noticed, {whole} were whole");
}

/// A process that ends before it has caught up leaves that to the next one.
#[tokio::test]
async fn that_something_was_missed_is_remembered_until_someone_has_caught_up() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        let (journal, left) = open(folder.path());
        assert_eq!(left.origin, JournalOrigin::New);
        journal.close().await;
    }
    std::fs::write(folder.path().join(JOURNAL_FILE), "not a database").expect("a write");
    for _ in 0..2 {
        let (journal, left) = open(folder.path());
        assert_eq!(left.origin, JournalOrigin::Corrupt);
        journal.close().await;
    }
    let (journal, _) = open(folder.path());
    assert_eq!(commit(&journal, vec![JournalChange::CaughtUp]).await, Ok(()));
    journal.close().await;
    assert_eq!(open(folder.path()).1.origin, JournalOrigin::Restored);
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_with_the_fix() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let why = refused(&file.path().join("folder"));
    assert!(why.contains("cannot be written") && why.contains("--journal none"), "{why}");
}

/// A disk that fails when it is told to, and remembers what was written.
#[derive(Clone, Default)]
struct Disk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Default)]
struct DiskState {
    contents: Contents,
    is_broken: bool,
    /// After a failure a store is dead until it is opened again, as redb's.
    opened: u32,
}

impl Disk {
    fn mend_and_lose(&self, target: &Target) {
        let mut state = self.state.lock();
        state.is_broken = false;
        state.contents.pending.remove(target);
    }
}

struct DiskStore {
    disk: Disk,
    opened: u32,
}

impl JournalMedium for Disk {
    fn open(&mut self) -> Result<(Box<dyn JournalStore>, Contents), OpenError> {
        let mut state = self.state.lock();
        if state.is_broken {
            return Err(OpenError::Unusable("no space left".to_owned()));
        }
        state.opened += 1;
        let store = DiskStore { disk: self.clone(), opened: state.opened };
        Ok((Box::new(store), state.contents.clone()))
    }
}

impl JournalStore for DiskStore {
    fn apply(&mut self, changes: &[JournalChange]) -> Result<Applied, CommitError> {
        let mut state = self.disk.state.lock();
        if state.is_broken || state.opened != self.opened {
            return Err(CommitError::Io(io::Error::other("no space left")));
        }
        changes.iter().cloned().for_each(|change| state.contents.apply(change));
        Ok(Applied::default())
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_recovers_by_itself() {
    let disk = Disk::default();
    let (journal, _) = Journal::open(Box::new(disk.clone()), Metrics::new()).expect("a journal");
    assert_eq!(
        commit(
            &journal,
            vec![JournalChange::AddPending(target("a"), 1), JournalChange::AddPending(target("b"), 1)]
        )
        .await,
        Ok(())
    );

    disk.state.lock().is_broken = true;
    journal.write_later([JournalChange::RemovePending(target("a"), 1)]);
    assert_eq!(commit(&journal, vec![JournalChange::AddPending(target("c"), 1)]).await, Err(NotDurable));
    assert!(!journal.is_writable());

    // Something else has damaged what was there, too.
    disk.mend_and_lose(&target("b"));
    for _ in 0..100 {
        if journal.is_writable() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(journal.is_writable(), "without anyone who writes");
    let pending: Vec<Target> = disk.state.lock().contents.pending.keys().cloned().collect();
    assert_eq!(pending, [target("b")], "what was acknowledged is there, what had ended is not");
    assert_eq!(commit(&journal, vec![JournalChange::AddPending(target("c"), 1)]).await, Ok(()));
}

#[tokio::test]
async fn an_absence_is_remembered_although_its_commit_fails() {
    let disk = Disk::default();
    disk.state.lock().contents.origin = JournalOrigin::Restored;
    let (journal, _) = Journal::open(Box::new(disk.clone()), Metrics::new()).expect("a journal");
    disk.state.lock().is_broken = true;
    journal.write_later([JournalChange::DowntimeDetected]);
    assert_eq!(commit(&journal, vec![JournalChange::Alive(1)]).await, Err(NotDurable));
    disk.state.lock().is_broken = false;
    while commit(&journal, vec![JournalChange::Alive(2)]).await.is_err() {}
    assert_eq!(disk.state.lock().contents.origin, JournalOrigin::RestoredAfterDowntime);
}

/// Two first starts in one folder: one has the journal, and the other one is refused.
#[tokio::test]
async fn two_processes_that_create_a_journal_do_not_share_it() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().expect("a folder");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || Journal::open(Box::new(JournalFolder::new(folder.path())), Metrics::new());
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            starts.into_iter().filter_map(|start| start.join().expect("no panic").ok()).collect()
        });
        assert_eq!(opened.len(), 1);
        let files = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, 1, "nothing unfinished stays behind");
        for (journal, _) in opened {
            journal.close().await;
        }
    }
}

#[tokio::test]
async fn commits_are_grouped() {
    let metrics = Metrics::new();
    let (journal, _) = Journal::open(Box::new(Disk::default()), Arc::clone(&metrics)).expect("a journal");
    let commits: Vec<JournalCommit> = (0..1000)
        .filter_map(|at| journal.write(vec![JournalChange::AddPending(target(&format!("object-{at}")), 1)]))
        .collect();
    for commit in commits {
        assert_eq!(commit.wait_until_durable().await, Ok(()));
    }
    let text = metrics.encode();
    let line =
        text.lines().find(|line| line.starts_with("flux_recv_journal_commits_total{result=\"success\"}"));
    let count: u32 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count");
    assert!(count < 500, "{count}");
}
