#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{BEAT, Lease, give_sign};
use crate::owner::Owner;
use crate::{RecordError, write_atomically, write_with};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time after which the owners of these tests count as dead.
const SHORT: Duration = Duration::from_millis(40);

/// Returns a process of another machine, of which only its signs of life are known.
fn of_machine(name: &str) -> Owner {
    Owner { machine: Some(name.to_owned()), ..Owner::this_process(SHORT) }
}

fn take(folder: &Path, machine: &str) -> Result<Lease, RecordError> {
    Lease::take_silently(folder, &of_machine(machine))
}

/// Tries until the owner counts as dead.
fn take_over(folder: &Path, machine: &str) -> Lease {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match take(folder, machine) {
            Ok(lease) => return lease,
            Err(error) => assert!(matches!(error, RecordError::Busy { .. }), "{error}"),
        }
        assert!(Instant::now() < limit);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn listed(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_is_held_released_and_held_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lease = Lease::take(folder, super::LEASE).unwrap();
    assert!(lease.succeeded().is_none() && !lease.is_lost());
    let owner = Owner::of(&crate::Layout::of(folder)).unwrap();
    assert_eq!(owner.pid, std::process::id());
    let error = Lease::take(folder, super::LEASE).unwrap_err();
    assert!(matches!(&error, RecordError::Busy { owner: Some(found), .. } if **found == owner), "{error}");
    let text = error.to_string();
    let named = format!("process {} on host {}", owner.pid, owner.host);
    assert!(text.contains(&named) && text.contains("is working on it"), "{text}");
    write_atomically(&folder.join("status.json"), b"{}").unwrap();
    drop(lease);
    assert_eq!(listed(folder), ["lease-000001", "status.json"]);
    assert_eq!(Owner::of(&crate::Layout::of(folder)), None);
    let again = Lease::take(folder, super::LEASE).unwrap();
    assert!(again.succeeded().is_none(), "it was released");
    drop(again);
    assert_eq!(listed(folder), ["lease-000002", "status.json"]);
}

/// The owner gives signs of life by itself, so its lease never ends while it lives.
#[test]
fn a_living_owner_on_another_machine_is_never_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let lease = Duration::from_millis(600);
    let held = Lease::take(folder.path(), lease).unwrap();
    // As another machine sees it.
    let claim = folder.path().join("lease-000001");
    let text = fs::read_to_string(&claim).unwrap();
    let machine = Owner::of(&crate::Layout::of(folder.path())).unwrap().machine.unwrap();
    fs::write(&claim, text.replace(&machine, "another")).unwrap();
    let from = Instant::now();
    while from.elapsed() < lease * 4 {
        assert!(matches!(take(folder.path(), "this"), Err(RecordError::Busy { .. })));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!held.is_lost());
    drop(held);
    take(folder.path(), "this").unwrap();
}

/// A process that was suspended while another took its run over can change nothing of the run any more, wherever
/// it was suspended.
#[test]
fn who_wakes_after_a_succession_can_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (path, log, tb) = (folder.join("status.json"), folder.join("log.jsonl"), folder.join("tb"));
    fs::create_dir(&tb).unwrap();
    let events = tb.join("events.out.tfevents.1.a.1.1");
    fs::write(&events, b"one ").unwrap();
    fs::write(&log, b"{}\n").unwrap();
    let mut open = fs::File::options().append(true).open(&events).unwrap();
    let first = take(folder, "first").unwrap();
    write_atomically(&path, b"first").unwrap();
    // It is suspended between the last byte of a file and the rename.
    let succeeded = std::cell::RefCell::new(None);
    let error = write_with(&path, |file| {
        file.write_all(b"late")?;
        *succeeded.borrow_mut() = Some(take_over(folder, "second"));
        Ok(())
    })
    .unwrap_err();
    let second = succeeded.into_inner().unwrap();
    assert_eq!(second.succeeded().unwrap().machine.as_deref(), Some("first"));
    let text = RecordError::io("write", &path)(error).to_string();
    assert!(
        text.contains("another process has taken this run over") && text.contains("lease_seconds"),
        "{text}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"first");
    // It is suspended elsewhere.
    assert!(first.is_lost() && !second.is_lost());
    open.write_all(b"late").unwrap();
    assert_eq!(fs::read(&events).unwrap(), b"one ");
    drop(first);
    assert!(!second.is_lost(), "the end of the old owner changes nothing");
    write_atomically(&path, b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    drop(second);
    assert_eq!(listed(folder), ["lease-000002", "log.jsonl", "status.json", "tb"]);
}

#[test]
fn what_a_process_left_that_died_while_claiming_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A work folder without a claim.
    fs::create_dir(folder.join("lease-000001-0123456789abcdef")).unwrap();
    drop(take(folder, "a").unwrap());
    // A claim without content, as on a file system without hard links: it counts as held until its time is over.
    fs::write(folder.join("lease-000007"), b"").unwrap();
    assert!(matches!(take(folder, "a"), Err(RecordError::Busy { owner: None, .. })));
    fs::remove_file(folder.join("lease-000007")).unwrap();
    // Names that are none of ours.
    fs::write(folder.join("lease-x"), b"").unwrap();
    fs::write(folder.join("lease-1-2-3"), b"").unwrap();
    drop(take(folder, "a").unwrap());
    assert_eq!(listed(folder), ["lease-000002", "lease-1-2-3", "lease-x"]);
}

#[test]
fn a_deleted_claim_does_not_make_two_owners() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = take(folder, "first").unwrap();
    fs::remove_file(folder.join("lease-000001")).unwrap();
    let second = take(folder, "second").unwrap();
    assert!(first.is_lost() && !second.is_lost());
    drop((first, second));
    assert_eq!(listed(folder), ["lease-000001"]);
}

#[test]
fn an_error_while_claiming_releases_the_claim_and_a_number_of_others_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    drop(take(folder, "a").unwrap());
    // Not one of ours: a folder with the name of a claim, a number that no claim has.
    fs::create_dir(folder.join("lease-000000")).unwrap();
    fs::write(folder.join(format!("lease-{}", u64::MAX)), b"").unwrap();
    drop(take(folder, "a").unwrap());
    // A folder in a dead owner's work folder goes with it.
    std::mem::forget(take(folder, "b").unwrap());
    let work = listed(folder).into_iter().find(|name| name.starts_with("lease-000003-")).unwrap();
    fs::create_dir(folder.join(work).join("nested")).unwrap();
    drop(take_over(folder, "c"));
    let left = ["lease-000000".to_owned(), "lease-000004".to_owned(), format!("lease-{}", u64::MAX)];
    assert_eq!(listed(folder), left);
}

/// The two files that grow in place are fenced as well.
#[test]
fn who_wakes_after_a_succession_can_begin_no_events_and_add_no_line_to_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (log, tb) = (folder.join("log.jsonl"), folder.join("tb"));
    fs::create_dir(&tb).unwrap();
    let first = take(folder, "first").unwrap();
    crate::log::append(&log, "one", &1).unwrap();
    drop(crate::EventWriter::create(&tb, None).unwrap());
    // Without a fence of its own the second would lend it to the first: all machines of this test are one process.
    let second = take_over(folder, "second");
    let work = second.work.clone();
    let mut second = second;
    drop(second.fence.take());
    assert!(first.is_lost());
    let before = (fs::read(&log).unwrap(), listed(&tb));
    for refused in [
        crate::log::append(&log, "late", &2).unwrap_err(),
        crate::EventWriter::create(&tb, None).unwrap_err(),
    ] {
        assert!(refused.to_string().contains("another process has taken this run over"), "{refused}");
    }
    assert_eq!((fs::read(&log).unwrap(), listed(&tb)), before);
    assert!(work.is_dir());
}

/// Many machines want one run. Each is suspended for longer than its lease now and then, at any step. What an
/// owner wrote is never replaced by what an owner before it wrote.
#[test]
fn suspended_owners_never_write_over_their_successors() {
    const MACHINES: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status.json");
    let (successions, refused, writes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for machine in 0..MACHINES {
            let (folder, path) = (folder.path(), &path);
            let (successions, refused, writes) = (&successions, &refused, &writes);
            scope.spawn(move || {
                let mut draw = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(machine + 1);
                let mut dice = move |sides: u64| {
                    draw ^= draw << 13;
                    draw ^= draw >> 7;
                    draw ^= draw << 17;
                    draw % sides
                };
                while Instant::now() < until {
                    let Ok(lease) = take(folder, &machine.to_string()) else {
                        std::thread::sleep(Duration::from_millis(1 + dice(4)));
                        continue;
                    };
                    successions.fetch_add(u64::from(lease.succeeded().is_some()), Ordering::Relaxed);
                    let number = number_of(&lease.work);
                    for _ in 0..dice(30) {
                        let suspended = if dice(12) == 0 { 60 + dice(60) } else { 0 };
                        // The registry of held folders belongs to a process. Here all machines are one process, so
                        // each names its own work folder.
                        let temporary = lease.work.join(format!("unfinished-{machine}"));
                        let written = fs::write(&temporary, number.to_string()).and_then(|()| {
                            std::thread::sleep(Duration::from_millis(suspended));
                            fs::rename(&temporary, path)
                        });
                        if written.is_err() {
                            assert!(lease.is_lost());
                            refused.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        writes.fetch_add(1, Ordering::Relaxed);
                        let found: u64 = fs::read_to_string(path).unwrap().parse().unwrap();
                        assert!(found >= number, "owner {number} found what owner {found} wrote");
                        let _ = give_sign(&lease.work.join(BEAT), writes.load(Ordering::Relaxed));
                        if dice(40) == 0 {
                            // It is killed.
                            std::mem::forget(lease);
                            break;
                        }
                    }
                }
            });
        }
    });
    let counts = [&successions, &refused, &writes].map(|count| count.load(Ordering::Relaxed));
    assert!(counts[0] >= 10 && counts[1] >= 3 && counts[2] >= 100, "{counts:?}: too little happened");
}

fn number_of(work: &Path) -> u64 {
    let name = work.file_name().unwrap().to_str().unwrap();
    name.split('-').nth(1).unwrap().parse().unwrap()
}
