//! What every command works with: the configuration in force and the two streams. Doors are opened only when asked for.

use super::error::{Error, Result};
use super::output::{Format, Notes, Output};
use crate::clock::Clock;
use crate::config::{Config, ensure_private_dir};
use crate::crypt::{Source, Vault};
use crate::job::{JobId, NewJob};
use crate::oci::ImageReference;
use crate::registry::{self, Client, Session, VaultHandle};
use crate::replicate::{Engine, Limits};
use crate::store::Store;
use crate::worker::watch::Watch;
use crate::worker::{Parts, descriptors};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Largest `/etc/passwd` that is searched for the user's name, bytes; beyond it the number must do.
const PASSWD_LIMIT_BYTES: u64 = 1024 * 1024;

/// What every command works with.
pub struct Context {
    /// The configuration in force.
    pub config: Config,
    /// Stdout.
    pub output: Output,
    /// Stderr.
    pub notes: Notes,
    /// Where times come from.
    pub clock: Clock,
    /// The database, once it is open.
    store: Option<Store>,
}

impl Context {
    /// Nothing is open yet.
    #[must_use]
    pub const fn new(config: Config, output: Output, notes: Notes, clock: Clock) -> Self {
        Self { config, output, notes, clock, store: None }
    }

    /// The format of results.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.output.format()
    }

    /// Opens the database, making and migrating it where needed.
    ///
    /// # Errors
    /// It cannot be used; the store says why.
    pub async fn store(&mut self) -> Result<Store> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let store = Store::open(&self.config.database, self.clock.clone()).await?;
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Somebody wants the process to end at once: the database is left as a crash would leave it, which is safe.
    pub fn abandon(&mut self) {
        self.store = None;
    }

    /// The database is closed, if it was open.
    pub async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }

    /// A registry client of its own.
    ///
    /// # Errors
    /// A CA file does not parse.
    pub fn client(&self) -> Result<Client> {
        // What it is made of is configuration: a CA file that holds none.
        let mut settings = self.config.registry();
        settings.vault = VaultHandle(Some(self.vault()));
        self.client_of(settings)
    }

    /// The vault of this configuration.
    #[must_use]
    pub fn vault(&self) -> Arc<Vault> {
        let source = match &self.config.vault_key_command {
            Some(command) => Source::Command(command.clone()),
            None => Source::of(&self.config.state_dir),
        };
        Vault::new(source, self.config.database.clone(), self.clock.clone(), self.store.clone())
    }

    /// A client with these settings.
    ///
    /// # Errors
    /// A CA file does not parse.
    pub fn client_of(&self, settings: registry::Settings) -> Result<Client> {
        Client::new(settings).map_err(|error| {
            Error::usage(error.to_string())
                .hint("check the PEM files of --ca-file, ca_files, client_cert and client_key")
        })
    }

    /// A session of a client of its own, whose requests nobody counts.
    ///
    /// # Errors
    /// A CA file does not parse.
    pub fn session(&self, verify_tls: Option<bool>) -> Result<Session> {
        Ok(self.client()?.session(verify_tls.unwrap_or(true), Arc::new(AtomicU64::new(0))))
    }

    /// The replication engine.
    ///
    /// # Errors
    /// A CA file does not parse.
    pub fn engine(&self) -> Result<Engine> {
        self.engine_within(self.config.limits())
    }

    fn engine_within(&self, limits: Limits) -> Result<Engine> {
        Ok(Engine::new(self.client()?, limits))
    }

    /// What workers need, with the state folder in place.
    ///
    /// # Errors
    /// The state folder cannot be made, the limit of open files is too low for one copy, or a CA file does not parse.
    pub fn parts(&self, store: Store, queue: Option<String>) -> Result<Parts> {
        self.make_state_dir()?;
        let mut settings = self.config.worker(queue);
        let mut limits = self.config.limits();
        settings.concurrency = descriptors::copies_at_a_time(settings.concurrency, &mut limits)
            .map_err(|message| Error::failed("descriptors", message))?;
        Ok(Parts {
            store,
            engine: self.engine_within(limits)?,
            settings,
            state_dir: self.config.state_dir.clone(),
            clock: self.clock.clone(),
            watch: Watch::default(),
        })
    }

    /// The state folder exists.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_state_dir(&self) -> Result {
        let path = &self.config.state_dir;
        ensure_private_dir(path).map_err(|error| {
            Error::failed("io", format!("cannot make the state folder {}: {error}", path.display()))
                .hint("name another one with --state-dir")
        })
    }

    /// A job from what was typed, with the defaults in force.
    ///
    /// # Errors
    /// A reference or an option is wrong; the message says which.
    pub fn new_job(&self, source: &str, destination: &str, options: crate::job::CopyOptions) -> Result<NewJob> {
        let mut job = NewJob::parse(source, destination, options, &self.config.base)?;
        job.max_attempts = self.config.max_attempts();
        Ok(job)
    }

    /// A reference from what was typed.
    ///
    /// # Errors
    /// The message says which part is wrong.
    pub fn reference(&self, text: &str) -> Result<ImageReference> {
        let reference: ImageReference =
            text.parse().map_err(|error| Error::usage(format!("reference `{text}`: {error}")))?;
        reference.absolute(&self.config.base).map_err(|error| Error::usage(format!("reference `{text}`: {error}")))
    }

    /// Who is typing, as it stands in the audit trail: `cli:` and the user's name, or number.
    #[must_use]
    pub fn actor(&self) -> String {
        let uid = rustix::process::getuid().as_raw();
        let mut passwd = String::new();
        if let Ok(file) = std::fs::File::open("/etc/passwd") {
            // What cannot be read has no names.
            file.take(PASSWD_LIMIT_BYTES).read_to_string(&mut passwd).unwrap_or_default();
        }
        format!("cli:{}", user_name(&passwd, uid).map_or_else(|| uid.to_string(), str::to_owned))
    }
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The error for an id that is not there.
#[must_use]
pub fn no_such_job(id: JobId) -> Error {
    Error::failed("not_found", format!("job {id} not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_password_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nmaria:x:1000:1000::/home/maria:/bin/sh\n";
        assert_eq!(user_name(passwd, 0), Some("root"));
        assert_eq!(user_name(passwd, 1000), Some("maria"));
        assert_eq!(user_name(passwd, 7), None);
        assert_eq!(user_name("", 0), None);
    }
}
