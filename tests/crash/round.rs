//! One round, from its plan to its verdict.

use super::Rules;
use super::book::Book;
use super::check::{self, Findings};
use super::driver::Driver;
use super::evidence::Evidence;
use super::plan::{Hit, Plan};
use super::scene::Scene;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// How a round ended.
pub struct Verdict {
    /// One line for people.
    pub line: String,
    /// Everything needed to understand what went wrong; None when all is well.
    pub trouble: Option<String>,
}

/// Most events and requests that are shown for one finding.
const SHOWN: usize = 60;

/// Plays the round of this seed.
pub fn run(seed: u64, rules: &Rules) -> Verdict {
    let plan = Plan::new(seed);
    let start = Instant::now();
    let scene = Scene::new(&plan, rules);
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let book = Driver::new(&plan, &scene).run();
        let (line, trouble) = judge(&plan, &scene, &book);
        (line, trouble, format!("diary\n  {}\n", book.diary.join("\n  ")))
    }));
    let (line, trouble, diary) = worked.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
        ("gave up".to_owned(), Some(format!("the round could not be carried out: {text}")), String::new())
    });
    let line = format!("seed {seed}: {line}; {:.1} s", start.elapsed().as_secs_f64());
    if rules.keep && trouble.is_none() {
        store(&plan, &scene, &diary);
    }
    let trouble = trouble.map(|text| {
        let text = format!("{text}\n{diary}");
        let kept = store(&plan, &scene, &text);
        format!("{text}\nkept in {}\nagain: scripts/crash --seed {seed}", kept.display())
    });
    Verdict { line, trouble }
}

fn judge(plan: &Plan, scene: &Scene, book: &Book) -> (String, Option<String>) {
    let evidence = Evidence::gather(plan, scene, book);
    let findings = check::all(&evidence);
    let hits = |hit: Hit| book.exits.iter().flat_map(|exit| &exit.blows).filter(|blow| blow.hit == hit).count();
    let mut line = evidence.outcomes();
    let (kills, stops, terms) = (hits(Hit::Kill), hits(Hit::Stop), hits(Hit::Term));
    write!(line, "; {kills} kills, {stops} stops, {terms} terms").expect("a string grows");
    if findings.late > 0 {
        write!(line, ", {} late", findings.late).expect("a string grows");
    }
    let trouble = (!findings.violations.is_empty()).then(|| explain(&evidence, &findings));
    (line, trouble)
}

/// Each finding with the jobs that it is about, their history, and what the destination saw of their targets.
fn explain(evidence: &Evidence<'_>, findings: &Findings) -> String {
    let mut text = String::new();
    for violation in &findings.violations {
        writeln!(text, "\nFAULT {:?} {}", violation.jobs, violation.text).expect("a string grows");
    }
    let mut shown: Vec<i64> = findings.violations.iter().flat_map(|violation| violation.jobs.clone()).collect();
    shown.sort_unstable();
    shown.dedup();
    for id in shown.into_iter().take(10) {
        let Some(job) = evidence.jobs.get(&id) else { continue };
        writeln!(text, "\n{job:?}").expect("a string grows");
        for event in evidence.events_of(id).take(SHOWN) {
            writeln!(text, "  {event:?}").expect("a string grows");
        }
        let name = job.destination.split_once('/').and_then(|(_, name)| name.rsplit_once(':'));
        let Some((repository, tag)) = name else { continue };
        for set in evidence.scene.destination.tag_history() {
            if (set.repository.as_str(), set.tag.as_str()) == (repository, tag) {
                writeln!(text, "  the destination set {repository}:{tag} to {} at {}", set.digest, set.at_ms)
                    .expect("a string grows");
            }
        }
        for request in
            evidence.scene.destination.requests().iter().filter(|one| one.path.contains(repository)).take(SHOWN)
        {
            writeln!(text, "  {} {} {:?} {} bytes", request.method, request.path, request.status, request.body_bytes)
                .expect("a string grows");
        }
    }
    text
}

/// Copies what the round left to a place that stays.
fn store(plan: &Plan, scene: &Scene, text: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash/seed-{}", plan.seed));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder to keep things in");
    std::fs::write(folder.join("plan.txt"), format!("{plan:#?}")).expect("write the plan");
    std::fs::write(folder.join("report.txt"), text).expect("write the report");
    for (name, from) in [("program", scene.folder()), ("shell", scene.shell.folder())] {
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(folder.join(name)).status();
        if !copied.is_ok_and(|status| status.success()) {
            eprintln!("the folder of the {name} could not be kept");
        }
    }
    if !scene.shell.store(&folder) {
        eprintln!("the database could not be kept");
    }
    folder
}
