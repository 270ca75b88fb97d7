//! The stage of one round: a fresh database, state folders, two registries, and a pool of images that share layers.

use super::Rules;
use super::plan::{MAX_ATTEMPTS, POOL, Plan, Request, Side, Source, Target};
use super::sql::{Place, Shell, password_file};
use super::support::binary::{Binary, Running};
use super::support::fake::Fake;
use super::support::image::{Image, ImageBuilder, index};
use super::support::need;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The tag that moves, at the source.
pub const MOVING: (&str, &str) = ("moving/app", "latest");

/// Shortest leases that the configuration allows: ttl 3 s, renewal 1 s, margin 1 s, a sweep every second.
const SHORT: [(&str, &str); 6] = [
    ("FREIGHTLINER_WORKER_LEASE_TTL_SECS", "3"),
    ("FREIGHTLINER_WORKER_LEASE_RENEWAL_SECS", "1"),
    ("FREIGHTLINER_WORKER_LEASE_MARGIN_SECS", "1"),
    ("FREIGHTLINER_WORKER_SWEEP_INTERVAL_SECS", "1"),
    ("FREIGHTLINER_WORKER_SHUTDOWN_GRACE_SECS", "1"),
    ("FREIGHTLINER_RETRY_CAP_SECS", "1"),
];

pub struct Scene {
    /// Runs a program in the surroundings of this round: its database, its state folder, its settings.
    binary: Binary,
    program: PathBuf,
    pub shell: Shell,
    /// Of the round; ends with it.
    _database: Place,
    pub source: Fake,
    pub destination: Fake,
}

impl Scene {
    pub fn new(plan: &Plan, rules: &Rules) -> Self {
        let setpriv = need("setpriv").expect("setpriv, of util-linux");
        let mut binary = Binary::of(setpriv);
        for (name, value) in SHORT {
            binary = binary.env(name, value);
        }
        let database = rules.kind.fresh(plan.seed);
        if let Some((name, file)) = password_file() {
            binary = binary.env(name, file);
        }
        binary = binary
            .env("FREIGHTLINER_DATABASE_URL", database.url())
            .env("FREIGHTLINER_RETRY_BASE_MS", "30")
            .env("FREIGHTLINER_RETRY_MAX_ATTEMPTS", MAX_ATTEMPTS.to_string())
            .env("FREIGHTLINER_RETRY_POISON_LIMIT", plan.poison_limit.to_string())
            .env("FREIGHTLINER_REGISTRY_TRIES", plan.registry_tries.to_string());
        let shell = Shell::new(&rules.kind, &database);
        let (source, destination) = (Fake::start(), Fake::start());
        if let Some(limit) = plan.registry_limit {
            let file = binary.home().join("limits.toml");
            let limits = format!("[registry]\nmax_running = {{ '{}' = {limit} }}\n", destination.authority());
            std::fs::write(&file, limits).expect("write the configuration");
            binary = binary.env("FREIGHTLINER_CONFIG", file.display().to_string());
        }
        let program = rules.program.clone();
        let scene = Self { shell, binary, program, _database: database, source, destination };
        for (number, image) in pool().iter().enumerate() {
            scene.source.put_image("pool/app", &pool_tag(number), image);
        }
        scene.source.put_image(MOVING.0, MOVING.1, &pool()[0]);
        for (side, matcher, fault) in &plan.faults {
            scene.side(*side).fault(matcher.clone(), fault.clone());
        }
        scene
    }

    fn side(&self, side: Side) -> &Fake {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// Starts the program. It dies with this process, however that ends, also when it is stopped just then.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let program = self.program.to_str().expect("a path in UTF-8");
        self.binary.spawn(&[&["--pdeathsig", "KILL", "--", program], arguments].concat())
    }

    /// The folder of everything this round leaves on disk.
    pub fn folder(&self) -> PathBuf {
        self.binary.home().parent().expect("a folder").to_owned()
    }

    /// The state folder of a host.
    pub fn state(&self, host: usize) -> PathBuf {
        if host == 0 { self.binary.state() } else { self.folder().join(format!("state-{host}")) }
    }

    pub fn layout(&self) -> PathBuf {
        self.binary.home().join("layout")
    }

    /// The source as it is typed.
    pub fn source_of(&self, request: &Request) -> String {
        match &request.source {
            Source::Pool(image) => self.source.reference("pool/app", &pool_tag(*image)),
            Source::Moving => self.source.reference(MOVING.0, MOVING.1),
            Source::Absent => self.source.reference("pool/app", "absent"),
            Source::Unparsable => "https://not a reference".to_owned(),
        }
    }

    /// The destination as it is typed.
    pub fn target_of(&self, request: &Request) -> String {
        match &request.target {
            Target::Registry { repository, tag } => self.destination.reference(repository, tag),
            Target::Layout { tag } => format!("oci:{}:{tag}", self.layout().display()),
        }
    }
}

fn pool_tag(image: usize) -> String {
    format!("i{image}")
}

/// The images of all rounds: layers of their own, layers that some share, and two indexes.
pub fn pool() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let single = |seed: u64| {
            ImageBuilder::oci(seed)
                .layer_from(seed * 10, 20_000 + usize::try_from(seed % 10).expect("small") * 9_000)
                .layer_from(seed % 3, 150_000)
                .layer_from(10 + seed % 2, 60_000)
        };
        let mut images: Vec<Image> = (1..=POOL as u64 - 2).map(|seed| single(100 + seed).build()).collect();
        for number in 0..2 {
            let other = single(200 + number).platform("linux", "arm64", None).build();
            images.push(index(vec![single(300 + number).build(), other]));
        }
        images
    })
}
