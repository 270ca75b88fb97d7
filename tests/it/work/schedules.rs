//! Schedules while processes work, die, and see the clock change.

use super::{REPOSITORY, Scene};
use crate::support::binary::{Binary, Running};
use crate::support::wall_clock::WallClock;
use crate::support::{PATIENCE, eventually};

/// Adds a schedule of the scene's copy.
fn add(scene: &Scene, name: &str, options: &[&str]) {
    let (from, to) = (scene.from(), scene.to());
    let words = [&["schedule", "add", name], options, &["--", &from, &to]].concat();
    scene.binary.run(&words).success();
}

/// The times that were dealt with: when, what became of it, the state of the job.
fn times(binary: &Binary, name: &str) -> Vec<(String, String, String)> {
    let query = format!(
        "SELECT at, outcome, coalesce(job_state, '') AS job FROM audit_schedules WHERE name = '{name}' ORDER BY at"
    );
    let rows = binary.run(&["sql", &query, "-o", "json"]).success().json();
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(row, "at"), text(row, "outcome"), text(row, "job"))).collect()
}

fn completed(binary: &Binary, name: &str) -> usize {
    times(binary, name).iter().filter(|(_, _, job)| job == "completed").count()
}

fn stop(mut worker: Running) {
    worker.sigterm();
    worker.wait(PATIENCE).success();
}

#[test]
fn a_schedule_copies_again_and_again_also_after_a_kill() {
    let scene = Scene::new();
    add(&scene, "often", &["--every", "1s"]);
    let worker = scene.binary.spawn(&["work"]);
    eventually("two runs", || (completed(&scene.binary, "often") >= 2).then_some(()));
    scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
    worker.kill9();
    let before = times(&scene.binary, "often").len();
    let worker = scene.binary.spawn(&["work"]);
    eventually("runs after the kill", || (completed(&scene.binary, "often") >= before + 2).then_some(()));
    stop(worker);
    let jobs = scene.binary.run(&["sql", "SELECT count(*) AS jobs FROM jobs", "-o", "json"]).success().json();
    let fired = times(&scene.binary, "often").iter().filter(|(_, outcome, _)| outcome == "fired").count();
    assert_eq!(jobs[0]["jobs"], fired, "each job has its time, and each time its job");
}

#[test]
fn two_processes_fire_each_time_once() {
    let scene = Scene::new();
    for number in 0..20 {
        add(&scene, &format!("s{number}"), &["--every", "1s", "--overlap", "allow"]);
    }
    let workers = [scene.binary.spawn(&["work"]), scene.binary.spawn(&["work"])];
    eventually("three times of each", || {
        let look = "SELECT min(n) AS n FROM (SELECT count(*) AS n FROM audit_schedules GROUP BY schedule_id) HAVING count(*) = 20";
        let rows = scene.binary.run(&["sql", look, "-o", "json"]).success().json();
        (rows[0]["n"].as_i64()? >= 3).then_some(())
    });
    workers.into_iter().for_each(stop);
    let look = "SELECT count(*) AS jobs, count(DISTINCT idempotency_key) AS times, \
        (SELECT count(*) FROM schedule_occurrences WHERE outcome = 'fired') AS fired FROM jobs";
    let rows = scene.binary.run(&["sql", look, "-o", "json"]).success().json();
    assert_eq!((&rows[0]["jobs"], &rows[0]["jobs"]), (&rows[0]["times"], &rows[0]["fired"]), "{rows}");
}

#[test]
fn what_is_due_is_part_of_what_a_drain_does() {
    let scene = Scene::new();
    let (from, to) = (scene.from(), scene.to());
    let insert = format!(
        "INSERT INTO schedules (name, timing, source, destination) VALUES ('by sql', '@now', '{from}', '{to}')"
    );
    scene.binary.run(&["db", "migrate"]).success();
    if scene.binary.sql(&insert).is_none() {
        return;
    }
    scene.binary.run(&["work", "--drain"]).success();
    scene.destination.assert_holds(REPOSITORY, "v1", &scene.image);
    assert_eq!(completed(&scene.binary, "by sql"), 1);
    scene.binary.run(&["work", "--drain"]).success();
    assert_eq!(times(&scene.binary, "by sql").len(), 1);
}

#[test]
fn a_night_in_spring_and_one_in_autumn_have_one_run_each_with_restarts_between() {
    let Some(clock) = WallClock::new() else { return };
    let binary = clock.variables().into_iter().fold(Binary::new(), |binary, (name, value)| binary.env(name, value));
    let scene = Scene::with(binary);
    for (evening, expected) in [
        ("2027-03-27 20:00:00", ["2027-03-28T01:00:00.000Z", "2027-03-29T00:30:00.000Z"]),
        ("2027-10-30 20:00:00", ["2027-10-31T00:30:00.000Z", "2027-11-01T01:30:00.000Z"]),
    ] {
        let seconds = |text: &str| {
            chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap().and_utc().timestamp()
        };
        let real = freightliner::clock::Clock::System.now().0 / 1000;
        let start = seconds(evening);
        let set = |at: i64| clock.set(&format!("+{}", at - real));
        set(start);
        add(&scene, evening, &["--cron", "30 2 * * *", "--timezone", "Europe/Berlin"]);
        // From half an hour to half an hour, with a new process each time.
        for step in 0..72 {
            set(start + step * 1800);
            if step % 6 == 0 || (6..14).contains(&step) {
                scene.binary.run(&["work", "--drain"]).success();
            }
        }
        let fired: Vec<String> = times(&scene.binary, evening)
            .into_iter()
            .filter(|(_, outcome, job)| outcome == "fired" && job == "completed")
            .map(|(at, _, _)| at)
            .collect();
        assert_eq!(fired, expected, "{evening}");
        scene.binary.run(&["schedule", "remove", evening]).success();
    }
}
