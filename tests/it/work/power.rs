//! Power cuts: whatever a disk may have forgotten, what was acknowledged is there.
//!
//! Not by cutting the power: real processes run under `strace`, and every state that the disk may have been left in is rebuilt
//! from their writes and syncs and opened again.

use super::{REPOSITORY, Scene, enqueue};
use crate::support::binary::{Binary, Output};
use crate::support::fake::{Fault, Matcher};
use crate::support::power::{Disk, Luck, lay_down};
use crate::support::trace::{self, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A shell script whose commands call the program as `$F`, under `strace`.
struct Traced {
    shell: Child,
    log: PathBuf,
}

impl Traced {
    fn start(binary: &Binary, script: &str) -> Option<Self> {
        let log = binary.home().join("trace");
        let mut command = trace::traced(script, &log)?;
        command
            .env("F", env!("CARGO_BIN_EXE_freightliner"))
            .env("FREIGHTLINER_DATABASE_URL", binary.database().url())
            .env("FREIGHTLINER_STATE_DIR", binary.state())
            .env("HOME", binary.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Some(Self { shell: command.spawn().expect("run strace"), log })
    }

    /// Waits for the script's good end; what it did to the folder of the database.
    fn steps(self, binary: &Binary) -> Vec<Step> {
        let output = Output::from(self.shell.wait_with_output().expect("wait for strace"));
        assert!(output.status.success(), "{output}");
        let folder = binary.database().file().parent().unwrap().canonicalize().unwrap();
        trace::read(&self.log, &folder)
    }
}

/// What users and logs were told: the least state of each job.
#[derive(Debug, Default, Clone)]
struct Told {
    there: BTreeSet<i64>,
    completed: BTreeSet<i64>,
    cancelled: BTreeSet<i64>,
}

impl Told {
    /// True when this was an acknowledgement.
    fn hear(&mut self, text: &str) -> bool {
        let before = self.there.len() + self.completed.len() + self.cancelled.len();
        for line in text.lines() {
            if let Ok(answer) = serde_json::from_str::<serde_json::Value>(line)
                && let Some(id) = answer["id"].as_i64().filter(|_| answer["created"] == true)
            {
                self.there.insert(id);
            }
            if line.contains(": completed digest=") {
                let id = line.split_once("job=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
                self.completed.insert(id);
            }
            if let Some(id) = line.strip_prefix("cancelled job ") {
                self.cancelled.insert(id.trim().parse().unwrap());
            }
        }
        before != self.there.len() + self.completed.len() + self.cancelled.len()
    }

    /// Panics unless the database in this folder knows all of it and is whole.
    fn assert_kept(&self, sqlite3: &Path, database: &Path, when: &str) {
        let jobs = if self.there.is_empty() {
            ""
        } else {
            "SELECT id, state, (SELECT count(*) FROM job_events WHERE job_id = jobs.id) FROM jobs"
        };
        let mut shell = std::process::Command::new(sqlite3);
        let output = Output::from(
            shell.args(["-batch", "-bail"]).arg(database).args(["PRAGMA integrity_check", jobs]).output().unwrap(),
        );
        assert!(output.status.success(), "{when}: {output}");
        let text = output.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("ok"), "{when}: {output}");
        let mut states = BTreeMap::new();
        for line in lines {
            let fields: Vec<&str> = line.split('|').collect();
            assert_ne!(fields[2], "0", "{when}: a job without history: {output}");
            states.insert(fields[0].parse::<i64>().unwrap(), fields[1].to_owned());
        }
        for id in &self.there {
            assert!(states.contains_key(id), "{when}: job {id} was acknowledged and is lost; there are {states:?}");
        }
        for (ids, state) in [(&self.completed, "completed"), (&self.cancelled, "cancelled")] {
            for id in ids {
                assert_eq!(states[id], state, "{when}: job {id} was said to be {state}");
            }
        }
    }
}

/// Every kind of image worth opening at a step, each content once.
struct Images {
    disk: Disk,
    seen: BTreeSet<u64>,
    seed: u64,
    folder: PathBuf,
    opened: usize,
}

impl Images {
    fn open(&mut self, sqlite3: &Path, told: &Told, kinds: &[Luck], when: &str) {
        for luck in kinds {
            let image = self.disk.image(*luck);
            let mut hasher = DefaultHasher::new();
            (&image, told.there.len(), told.completed.len(), told.cancelled.len()).hash(&mut hasher);
            if !self.seen.insert(hasher.finish()) {
                continue;
            }
            lay_down(&image, &self.folder);
            told.assert_kept(sqlite3, &self.folder.join("freightliner.db"), &format!("{when}, {luck:?} of the rest"));
            self.opened += 1;
        }
    }

    fn lucky(&mut self) -> Luck {
        self.seed += 1;
        Luck::Some(self.seed)
    }
}

#[test]
fn whatever_the_disk_forgets_nothing_acknowledged_is_lost() {
    let Some(sqlite3) = crate::support::need("sqlite3") else { return };
    let scene = Scene::with(Binary::new());
    let add = |n: usize| {
        format!("$F enqueue -o json {} {}\n", scene.from(), scene.destination.reference("many/app", &format!("t{n}")))
    };
    let mut script = String::from("set -e\n");
    (1..=4).for_each(|n| script.push_str(&add(n)));
    script.push_str("$F jobs cancel 2 >&2\necho cancelled job 2\n");
    script.push_str("$F work --concurrency 3 & worker=$!\n");
    (5..=10).for_each(|n| script.push_str(&add(n)));
    script.push_str("$F jobs wait 1 3 4 5 6 7 8 9 10 --timeout 60s >&2\nkill -TERM $worker\nwait $worker\n");
    let Some(traced) = Traced::start(&scene.binary, &script) else { return };
    let steps = traced.steps(&scene.binary);

    let folder = scene.binary.home().join("image");
    let mut images = Images { disk: Disk::default(), seen: BTreeSet::new(), seed: 0, folder, opened: 0 };
    let mut told = Told::default();
    for (at, step) in steps.iter().enumerate() {
        images.disk.apply(step);
        let lucky = images.lucky();
        let kinds = match step {
            Step::Said(text) if told.hear(text) => vec![Luck::Nothing, lucky, Luck::Everything],
            Step::SyncEnded(_) | Step::Removed(_) => vec![Luck::Nothing, lucky],
            Step::Wrote { .. } if at % 8 == 0 => vec![lucky],
            _ => continue,
        };
        images.open(&sqlite3, &told, &kinds, &format!("step {at}"));
    }
    assert_eq!(told.there, (1..=10).collect(), "all were acknowledged");
    assert_eq!(told.completed.len(), 9, "{told:?}");
    assert!(images.opened > 100, "only {} images", images.opened);
    // The last one in the hands of the program itself.
    let after = Binary::new();
    lay_down(&images.disk.image(Luck::Nothing), after.database().file().parent().unwrap());
    after.run(&["db", "check"]).success();
    after.run(&["work", "--drain"]).success();
}

#[test]
fn a_checkpoint_may_be_cut_off_at_any_step() {
    // Long enough for the log to be cut right after the first transaction.
    let Some(steps) = look_at_a_load(4000) else { return };
    let cut = |step: &Step| matches!(step, Step::Truncated { file, size: 0 } if file.ends_with("-wal"));
    assert!(steps.iter().any(cut), "the log was never cut");
}

#[test]
fn a_log_that_is_written_over_may_be_cut_off_at_any_step() {
    // Long enough to be copied, and too short to be cut.
    let Some(steps) = look_at_a_load(1100) else { return };
    let starts = steps.iter().filter(|step| matches!(step, Step::Wrote { file, at: 0, .. } if file.ends_with("-wal")));
    assert!(starts.count() > 1, "the log was never begun anew");
}

/// Enqueues a thousand jobs with keys of this length in one transaction, and some more after it; looks at the disk after any
/// step. None without the tools.
fn look_at_a_load(key: usize) -> Option<Vec<Step>> {
    const JOBS: usize = 1_050;
    let sqlite3 = crate::support::need("sqlite3")?;
    let binary = Binary::new();
    let key = "k".repeat(key);
    let line = |n: usize| {
        let job = serde_json::json!({
            "source": format!("a.example/x:{n}"), "destination": format!("b.example/x:{n}"),
            "idempotency_key": format!("{n} {key}"),
        });
        format!("{job}\n")
    };
    let file = binary.home().join("lines");
    std::fs::write(&file, (0..JOBS).map(line).collect::<String>()).unwrap();
    let script = format!("exec $F enqueue -o jsonl --from-file '{}'", file.display());
    let steps = Traced::start(&binary, &script)?.steps(&binary);

    let folder = binary.home().join("image");
    let mut images = Images { disk: Disk::default(), seen: BTreeSet::new(), seed: 0, folder, opened: 0 };
    let mut told = Told::default();
    for (at, step) in steps.iter().enumerate() {
        images.disk.apply(step);
        let lucky = images.lucky();
        let kinds = match step {
            Step::Said(text) if told.hear(text) => vec![Luck::Nothing],
            Step::Said(_) | Step::Opened(_) | Step::SyncBegan(..) => continue,
            // Before anything was acknowledged the other test has looked.
            _ if told.there.is_empty() => continue,
            Step::Wrote { .. } if at % 250 != 0 => continue,
            _ => vec![Luck::Nothing, lucky],
        };
        images.open(&sqlite3, &told, &kinds, &format!("step {at}"));
    }
    assert!(told.there.len() > JOBS / 2, "only {} acknowledgements were understood", told.there.len());
    assert!(images.opened > 15, "only {} images", images.opened);
    Some(steps)
}

#[test]
fn many_who_wait_share_one_sync() {
    const JOBS: usize = 48;
    let scene = Scene::new();
    for n in 0..JOBS {
        scene.destination.put_image(REPOSITORY, &format!("t{n}"), &scene.image);
        enqueue(&scene.binary, &["enqueue", &scene.from(), &scene.destination.reference(REPOSITORY, &format!("t{n}"))]);
    }
    // All of them end in the same moment: their destinations answer together.
    scene.destination.fault(Matcher::new("HEAD", "/manifests/").always(), Fault::HoldUntil("together".to_owned()));
    let script = format!("exec $F work --drain --concurrency {JOBS}");
    let Some(traced) = Traced::start(&scene.binary, &script) else { return };
    crate::support::eventually("all at the gate", || {
        (scene.destination.count("HEAD", "/manifests/") == JOBS).then_some(())
    });
    scene.destination.release("together");
    let steps = traced.steps(&scene.binary);
    let ends: Vec<usize> = (0..steps.len())
        .filter(|at| matches!(&steps[*at], Step::Said(text) if text.contains(": completed digest=")))
        .collect();
    assert_eq!(ends.len(), JOBS);
    let syncs = steps[..ends[JOBS - 1]]
        .iter()
        .filter(|step| matches!(step, Step::SyncBegan(_, file) if file.ends_with("-wal")))
        .count();
    assert!((1..JOBS / 2).contains(&syncs), "{syncs} syncs for {JOBS} claims and {JOBS} ends");
}
