//! Carries a plan out: starts processes, hits them, and writes down what was promised.

mod operate;

use super::book::{Acknowledged, Blow, Book, Deed, Exit};
use super::plan::{Action, By, Group, Hit, Plan, QUEUES, Request, TOMORROW_MS, Way};
use super::scene::{MOVING, Scene, pool};
use super::support::binary::Running;
use super::support::{PATIENCE, eventually, unix_millis, within};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// How long the first command of a round takes on a machine that has nothing else to do; the plan's moments are meant for that.
const USUAL_START: Duration = Duration::from_millis(120);
/// So many times slower a plan is carried out at most.
const MOST_STRETCH: f64 = 4.0;
/// The part of the plan that is about programs that start, milliseconds.
const BUSY_MS: u64 = 2_500;

/// How long a list that is to be interrupted is waited for.
const SPEAKS_WITHIN: Duration = Duration::from_millis(250);

/// A process that was started and not yet waited for.
struct Process {
    running: Running,
    label: String,
    deed: Deed,
    started_ms: i64,
    blows: Vec<Blow>,
}

impl Process {
    /// Hits it, unless it has ended.
    fn hit(&mut self, hit: Hit) {
        if !self.running.is_running() {
            return;
        }
        let ready = self.running.stderr().contains("\"working\"");
        self.blows.push(Blow { at_ms: unix_millis(), hit, ready });
        let signal = match hit {
            Hit::Kill => Signal::KILL,
            Hit::Stop => Signal::STOP,
            Hit::Continue => Signal::CONT,
            Hit::Term => Signal::TERM,
        };
        let pid = Pid::from_raw(i32::try_from(self.running.id()).expect("a process id")).expect("not 0");
        // Not waited for yet, so that the id is still its own.
        kill_process(pid, signal).expect("send a signal");
    }
}

pub struct Driver<'a> {
    plan: &'a Plan,
    scene: &'a Scene,
    workers: Vec<Option<Process>>,
    others: Vec<Process>,
    start_ms: i64,
    ambushed: bool,
    stretch: f64,
    /// Jobs that operators paused, by the number that the plan gives them.
    held: HashMap<usize, i64>,
    pub book: Book,
}

impl<'a> Driver<'a> {
    pub fn new(plan: &'a Plan, scene: &'a Scene) -> Self {
        let start_ms = unix_millis();
        let workers = plan.slots.iter().map(|_| None).collect();
        let mut book = Book::default();
        book.moves.push((0, 0, 0));
        // The database is there before strangers look for it.
        let migrated = Instant::now();
        drop(scene.start(&["db", "migrate"]).finish().success());
        scene.shell.archive();
        let stretch = (migrated.elapsed().as_secs_f64() / USUAL_START.as_secs_f64()).clamp(1.0, MOST_STRETCH);
        let limit = format!("INSERT INTO queues (name, max_running) VALUES ('slow', {})", plan.slow_limit);
        // The column is not in every version of the schema.
        if scene.shell.try_rows::<serde_json::Value>("SELECT max_running FROM queues").is_ok() {
            drop(scene.shell.start(&limit).finish().success());
        }
        let held = HashMap::new();
        Self { plan, scene, workers, others: Vec::new(), start_ms, ambushed: false, stretch, held, book }
    }

    /// Everything of the plan at its time, then the end: whoever is stopped goes on, faults are gone, workers leave, one
    /// `sweep` a host, and one `work --drain` does what is left.
    pub fn run(mut self) -> Book {
        self.start_ms = unix_millis();
        for step in &self.plan.steps {
            let at = self.start_ms + i64::try_from(self.stretched(step.at_ms)).expect("small");
            let wait = u64::try_from(at - unix_millis()).unwrap_or(0);
            std::thread::sleep(Duration::from_millis(wait));
            self.perform(&step.action);
            self.reap();
        }
        self.settle_down();
        self.book
    }

    /// When something planned for this moment is done: a machine that is slow to start a program gets more time for all that is
    /// about programs that start, but not for what waits for leases.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    fn stretched(&self, at_ms: u64) -> u64 {
        let busy = at_ms.min(BUSY_MS);
        (busy as f64 * self.stretch) as u64 + (at_ms - busy)
    }

    fn note(&mut self, text: &str) {
        self.book.diary.push(format!("{:>6} ms  {text}", unix_millis() - self.start_ms));
    }

    fn perform(&mut self, action: &Action) {
        self.note(&format!("{action:?}"));
        match action {
            Action::Start { slot } => self.start_worker(*slot),
            Action::Worker { slot, hit } => self.hit_worker(*slot, *hit),
            Action::Ask { group } => self.ask(*group),
            Action::Asker { group, hit } => {
                if let Some(process) = self.asker(*group) {
                    process.hit(*hit);
                }
            }
            Action::Interrupt { group } => {
                if let Some(process) = self.asker(*group) {
                    let spoken = || (!process.running.stdout().is_empty()).then_some(());
                    let _ = within(SPEAKS_WITHIN, spoken);
                    process.hit(Hit::Kill);
                }
            }
            Action::Cancel { nth, by } => self.cancel(*nth, *by),
            Action::Retry { nth, by } => self.retry(*nth, *by),
            Action::Prioritise { nth, priority } => {
                if let Some(id) = self.acknowledged(*nth) {
                    self.sql(&format!("UPDATE jobs SET priority = {priority} WHERE id = {id}"));
                }
            }
            Action::RetryFailed => {
                self.book.failed_retried = true;
                self.cli(&["jobs", "retry", "--state", "failed"], Deed::Steer);
            }
            Action::Move { image } => {
                let before = unix_millis();
                self.scene.source.put_image(MOVING.0, MOVING.1, &pool()[*image]);
                self.book.moves.push((before, unix_millis(), *image));
            }
            Action::Pause { queue } => {
                let now = self.scene.shell.now_ms();
                self.sql(&format!(
                    "INSERT INTO queues (name, paused_at) VALUES ('{queue}', {now}) \
                     ON CONFLICT (name) DO UPDATE SET paused_at = {now}"
                ));
            }
            Action::Resume { queue } => self.sql(&format!("UPDATE queues SET paused_at = NULL WHERE name = '{queue}'")),
            Action::Sweep { host } => {
                let state = self.scene.state(*host).display().to_string();
                self.cli(&["--state-dir", &state, "sweep"], Deed::Steer);
            }
            Action::Operate(operation) => self.operate(operation),
            Action::Release { gate } => self.scene.destination.release(gate),
            Action::Ambush { target, gate } => self.ambush(*target, gate),
            Action::Leave => self.workers.iter_mut().flatten().for_each(|worker| worker.hit(Hit::Continue)),
        }
    }

    /// The process that asks for this group, the newest one.
    fn asker(&mut self, group: usize) -> Option<&mut Process> {
        self.others.iter_mut().rev().find(|process| process.deed == Deed::Ask { group })
    }

    fn start_worker(&mut self, slot: usize) {
        if self.workers[slot].as_mut().is_some_and(|worker| worker.running.is_running()) {
            // One that stops may do so beside its successor.
            let stops = |worker: &Process| worker.blows.iter().any(|blow| blow.hit == Hit::Term);
            if !self.workers[slot].as_ref().is_some_and(stops) {
                return;
            }
        }
        self.others.extend(self.workers[slot].take());
        let place = &self.plan.slots[slot];
        let (state, concurrency) = (self.scene.state(place.host).display().to_string(), place.concurrency.to_string());
        let arguments = ["--log-format", "json", "--state-dir", &state, "work", "--concurrency", &concurrency];
        let label = format!("worker {slot}: {}", arguments.join(" "));
        let running = self.scene.start(&arguments);
        let deed = Deed::Work { host: place.host };
        self.workers[slot] = Some(Process { running, label, deed, started_ms: unix_millis(), blows: Vec::new() });
    }

    fn hit_worker(&mut self, slot: usize, hit: Hit) {
        if let Some(worker) = &mut self.workers[slot] {
            worker.hit(hit);
        }
    }

    /// Stops the worker whose tag waits at this gate, if there is one.
    fn ambush(&mut self, (repository, tag): (&str, &str), gate: &str) {
        if self.ambushed || !self.scene.destination.has_reached(gate) {
            return;
        }
        let target = self.scene.destination.reference(repository, tag);
        let query = format!(
            "SELECT w.pid FROM jobs AS j JOIN workers AS w ON w.id = j.worker \
             WHERE j.state = 'running' AND j.destination = '{target}'"
        );
        let holders: Vec<BTreeMap<String, i64>> = self.scene.shell.rows(&query);
        for holder in holders {
            let mut workers = self.workers.iter_mut().flatten();
            if let Some(worker) = workers.find(|worker| i64::from(worker.running.id()) == holder["pid"]) {
                worker.hit(Hit::Stop);
                // One that has the database's lock holds up all who could take its jobs: another moment will do.
                if self.scene.shell.is_writable() {
                    self.ambushed = true;
                } else {
                    worker.hit(Hit::Continue);
                }
            }
        }
    }

    fn spawn(&mut self, running: Running, label: String, deed: Deed) {
        self.others.push(Process { running, label, deed, started_ms: unix_millis(), blows: Vec::new() });
    }

    fn cli(&mut self, arguments: &[&str], deed: Deed) {
        let running = self.scene.start(arguments);
        self.spawn(running, arguments.join(" "), deed);
    }

    fn sql(&mut self, statements: &str) {
        let running = self.scene.shell.start(statements);
        self.spawn(running, statements.to_owned(), Deed::Steer);
    }

    /// The so-manieth acknowledged job, modulo their number.
    fn acknowledged(&self, nth: usize) -> Option<i64> {
        let ids: Vec<i64> = self.book.acknowledged.iter().filter_map(|acknowledged| acknowledged.id).collect();
        ids.get(nth % ids.len().max(1)).copied()
    }

    fn cancel(&mut self, nth: usize, by: By) {
        let Some(id) = self.acknowledged(nth) else { return };
        self.book.cancels.insert(id);
        let now = self.scene.shell.now_ms();
        match by {
            By::Cli => self.cli(&["jobs", "cancel", &id.to_string()], Deed::SteerJob { id }),
            By::Sql => self.sql(&format!(
                "UPDATE jobs SET cancel_requested_at = {now} \
                 WHERE id = {id} AND state IN ('scheduled', 'pending', 'running')"
            )),
        }
    }

    fn retry(&mut self, nth: usize, by: By) {
        let Some(id) = self.acknowledged(nth) else { return };
        self.book.retries.insert(id);
        match by {
            By::Cli => self.cli(&["jobs", "retry", &id.to_string()], Deed::SteerJob { id }),
            By::Sql => self.sql(&format!(
                "UPDATE jobs SET state = 'pending' WHERE id = {id} AND state IN ('completed', 'failed', 'cancelled')"
            )),
        }
    }

    fn ask(&mut self, number: usize) {
        let group: &Group = &self.plan.groups[number];
        let requests: Vec<&Request> = group.requests.iter().map(|request| &self.plan.requests[*request]).collect();
        let deed = Deed::Ask { group: number };
        match group.way {
            Way::Enqueue | Way::Replicate => {
                let arguments = self.typed(group.way, requests[0]);
                self.cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), deed);
            }
            Way::Load => {
                let path = self.scene.folder().join(format!("load-{number}.jsonl"));
                let lines: String = requests.iter().map(|request| self.line(request) + "\n").collect();
                std::fs::write(&path, lines).expect("write a list");
                self.cli(&["enqueue", "--from-file", &path.display().to_string()], deed);
            }
            Way::Insert | Way::Hold => {
                let inserts = group.requests.iter().map(|request| self.insert(*request));
                let inserts = inserts.collect::<Vec<_>>().join("\n");
                let held = if group.way == Way::Hold {
                    let target = self.scene.target_of(requests[0]);
                    format!("{} WHERE destination = '{target}' AND state = 'pending';\n", self.pause())
                } else {
                    String::new()
                };
                let statements = format!("BEGIN;\n{inserts}\n{held}COMMIT;");
                let running = self.scene.shell.start(&statements);
                self.spawn(running, statements, deed);
            }
        }
    }

    /// The command line that asks for one copy.
    fn typed(&self, way: Way, request: &Request) -> Vec<String> {
        let command = if way == Way::Replicate { "replicate" } else { "enqueue" };
        let mut arguments =
            vec!["--log-format".to_owned(), "json".to_owned(), command.to_owned(), self.scene.source_of(request)];
        arguments.push(self.scene.target_of(request));
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([name.to_owned(), value]);
            }
        };
        option("--priority", Some(request.priority.to_string()));
        option("--queue", Some(request.queue.to_owned()));
        option("--in", request.delay_ms.map(|delay| format!("{delay}ms")));
        option("--max-attempts", request.max_attempts.map(|attempts| attempts.to_string()));
        option("--idempotency-key", request.key.clone());
        arguments
    }

    /// A line of a list.
    fn line(&self, request: &Request) -> String {
        let (source, destination) = (self.scene.source_of(request), self.scene.target_of(request));
        let mut line =
            serde_json::json!({ "source": source, "destination": destination, "priority": request.priority });
        // The list has to be the same when it is loaded again: a time, not a delay.
        if let Some(delay) = request.delay_ms {
            let at = self.start_ms + i64::try_from(delay).expect("small");
            line["run_at"] = freightliner::clock::UnixMillis(at).to_rfc3339().into();
        }
        line.to_string()
    }

    /// A statement that inserts one row and says its id.
    fn insert(&self, number: usize) -> String {
        let request = &self.plan.requests[number];
        let (source, destination) = (self.scene.source_of(request), self.scene.target_of(request));
        let mut columns = "source, destination, queue, priority".to_owned();
        let mut values = format!("'{source}', '{destination}', '{}', {}", request.queue, request.priority);
        let mut column = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                columns.push_str(&format!(", {name}"));
                values.push_str(&format!(", {value}"));
            }
        };
        column("run_at", request.delay_ms.map(|delay| format!("{} + {delay}", self.scene.shell.now_ms())));
        column("max_attempts", request.max_attempts.map(|attempts| attempts.to_string()));
        column("idempotency_key", request.key.as_ref().map(|key| format!("'{key}'")));
        format!("INSERT INTO jobs ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING RETURNING 'id {number} ' || id;")
    }

    /// Takes in who has ended.
    fn reap(&mut self) {
        for mut process in std::mem::take(&mut self.others) {
            if process.running.is_running() {
                self.others.push(process);
            } else {
                self.ended(process);
            }
        }
    }

    fn ended(&mut self, mut process: Process) {
        let output = process.running.wait(PATIENCE);
        let Process { running, label, deed, started_ms, blows } = process;
        let log = running.stderr_file().to_owned();
        if let (Deed::Ask { group }, Some(0)) = (deed, output.code()) {
            self.acknowledge(group, &output.text());
        }
        let status = output.status;
        let short = label.lines().next().unwrap_or_default();
        self.note(&format!("ended ({status}), log {}: {short}", log.display()));
        self.book.exits.push(Exit { label, deed, started_ms, blows, output, log });
    }

    /// The asker has its answer: from now on it may rely on it.
    fn acknowledge(&mut self, number: usize, answer: &str) {
        let group = &self.plan.groups[number];
        match group.way {
            // Its answer is the result, not an id.
            Way::Replicate => {}
            Way::Enqueue | Way::Load => {
                let ids: Vec<i64> = answer.lines().map(|line| line.trim().parse().expect("an id a line")).collect();
                assert_eq!(ids.len(), group.requests.len(), "one line a job: {answer}");
                let acknowledged = group.requests.iter().zip(ids);
                let acknowledged = acknowledged.map(|(request, id)| Acknowledged { request: *request, id: Some(id) });
                self.book.acknowledged.extend(acknowledged);
            }
            Way::Insert | Way::Hold => {
                for request in &group.requests {
                    let said = |line: &str| line.strip_prefix(&format!("id {request} "))?.parse().ok();
                    let id: Option<i64> = answer.lines().find_map(said);
                    self.book.acknowledged.push(Acknowledged { request: *request, id });
                }
            }
        }
    }

    fn settle_down(&mut self) {
        self.note("the end: all go on, all is well again");
        for process in self.others.iter_mut().chain(self.workers.iter_mut().flatten()) {
            process.hit(Hit::Continue);
        }
        self.scene.source.heal();
        self.scene.destination.heal();
        // A replicate ends when its job does: it may need a queue that goes on, and workers. So those leave last.
        let groups = &self.plan.groups;
        let replicates = |deed: Deed| matches!(deed, Deed::Ask { group } if groups[group].way == Way::Replicate);
        let (patient, quick): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.others).into_iter().partition(|process| replicates(process.deed));
        for process in quick {
            self.ended(process);
        }
        // After whoever may have paused one has ended.
        let names = QUEUES.map(|queue| format!("'{queue}'")).join(", ");
        self.sql(&format!(
            "BEGIN; UPDATE queues SET paused_at = NULL WHERE name IN ({names}); \
             UPDATE jobs SET paused_at = NULL WHERE paused_at IS NOT NULL; COMMIT"
        ));
        for process in std::mem::take(&mut self.others).into_iter().chain(patient) {
            self.ended(process);
        }
        for worker in self.workers.iter_mut().flatten() {
            // Before it can take a signal well it would just die of it.
            eventually("a worker that works or has ended", || {
                (worker.running.stderr().contains("\"working\"") || !worker.running.is_running()).then_some(())
            });
            worker.hit(Hit::Term);
        }
        for worker in std::mem::take(&mut self.workers).into_iter().flatten() {
            self.ended(worker);
        }
        self.sweep();
        self.wait_for_delayed();
        self.cli(&["--log-format", "json", "work", "--drain"], Deed::Drain);
        let drain = self.others.pop().expect("started just now");
        self.ended(drain);
        self.sweep();
    }

    /// What was asked for at a later time of this round is due when this returns: a drain does not wait for it.
    fn wait_for_delayed(&self) {
        let soon = self.start_ms + i64::try_from(TOMORROW_MS / 2).expect("small");
        let query = format!("SELECT MAX(run_at) AS at FROM jobs WHERE state = 'scheduled' AND run_at < {soon}");
        let last: Vec<BTreeMap<String, Option<i64>>> = self.scene.shell.rows(&query);
        let wait = last[0]["at"].map_or(0, |at| at - unix_millis());
        std::thread::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0)));
    }

    fn sweep(&mut self) {
        for host in 0..self.plan.hosts {
            let state = self.scene.state(host).display().to_string();
            self.cli(&["--state-dir", &state, "sweep"], Deed::Steer);
            let sweep = self.others.pop().expect("started just now");
            self.ended(sweep);
        }
    }
}
