//! Connections, and one statement on one of them: every request of the store is a single round trip.
//!
//! A statement is its own transaction, begun and ended by the server. So no transaction of ours is ever open between two of
//! our packets: a process that is stopped, or a network that ends in the middle, leaves no lock behind. Only behind a
//! transaction pooler, where the driver's two packets could reach two servers, each statement stands between BEGIN and
//! COMMIT, and the server ends it when we fall silent.
//!
//! Not the driver's pool: that one asks the server before each use whether it is still there, which doubles the round trips
//! of a quiet queue, and gives a connection back in a task of its own. Here a connection is taken out and put back only by a
//! call that came to its end; one that was dropped half way, or that failed, is closed.

use crate::clock::{BootTime, Clock};
use crate::store::{DatabaseUrl, Error, url::PostgresUrl};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Encode, Executor, Postgres, Type};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long making a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How much longer than the server's own limit for a statement we wait for its answer.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// How long a statement waits for somebody else's lock.
const LOCK_LIMIT: Duration = Duration::from_secs(3);
/// Pauses between tries while the server cannot be reached: a restart takes about a second, a failover a few.
const PAUSES: [Duration; 8] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// A connection that was not used for so long is asked for a sign of life before it is given something that must not be
/// repeated.
const STALE: Duration = Duration::from_secs(1);
/// A connection that was not used for so long is closed when the next one is put back.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// A statement with its parameters.
#[derive(Clone)]
pub(super) struct Statement {
    text: &'static str,
    arguments: PgArguments,
    wrong: Option<String>,
}

impl Statement {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, arguments: PgArguments::default(), wrong: None }
    }

    /// The next parameter.
    pub(super) fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if let Err(error) = self.arguments.add(value) {
            self.wrong.get_or_insert(error.to_string());
        }
        self
    }

    /// The next parameter, a text that may hold what the database cannot.
    pub(super) fn bind_text(self, value: &str) -> Self {
        self.bind(plain(value))
    }
}

/// Text as the database can hold it: it has no NUL.
pub(super) fn plain(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// May a statement be sent again when its answer was lost?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It reads, is fenced, or comes to the same when it is done twice.
    Harmless,
    /// It would happen twice.
    Never,
    /// It would happen twice; and when somebody's lock was waited for in vain, that is the answer: whoever asks has other things
    /// to look at before the next try.
    NeverNorLocked,
}

/// Why a statement has no result.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The server's SQLSTATE, when it answered.
    pub(super) state: Option<String>,
    /// It was sent and may have been done.
    pub(super) unknown: bool,
    /// The server was waited for as long as can be.
    late: bool,
}

impl Failed {
    fn before(error: Error) -> Self {
        Self { error, state: None, unknown: false, late: false }
    }

    /// Somebody else has locked what it needs.
    fn is_locked(&self) -> bool {
        self.state.as_deref() == Some("55P03")
    }

    /// A row with this key is there already.
    pub(super) fn is_duplicate(&self) -> bool {
        self.state.as_deref() == Some("23505")
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed.error {
            Self::Backend { message, .. } if failed.unknown => Self::Backend {
                message: format!(
                    "{message}; the connection was lost before the answer came, so it is not known whether the change was \
                     made: look before you ask again"
                ),
                busy: false,
            },
            error => error,
        }
    }
}

/// How this program's sessions are set up.
#[derive(Clone)]
pub(super) struct Sessions {
    options: PgConnectOptions,
    listening: Option<Listening>,
    pooled: bool,
}

/// How to come to a session that can listen.
#[derive(Clone)]
pub(super) struct Listening {
    pub(super) options: PgConnectOptions,
    /// How everything else comes to the server, when that is another way: both must lead to the same place.
    pub(super) others: Option<PgConnectOptions>,
}

impl Sessions {
    pub(super) fn new(url: &PostgresUrl) -> Result<Self, Error> {
        let mut options = options(url)?;
        if url.is_pooled() {
            // A pooler passes neither on.
            options = options.extra_float_digits(None).statement_cache_capacity(0);
        }
        let listening = match url.listen() {
            Some(listen) => Some(Listening { options: self::options(listen)?, others: Some(options.clone()) }),
            None if url.is_pooled() => None,
            None => Some(Listening { options: options.clone(), others: None }),
        };
        Ok(Self { options, listening, pooled: url.is_pooled() })
    }

    /// None behind a pooler, unless there is a way past it: it keeps no session to listen in.
    pub(super) const fn listening(&self) -> Option<&Listening> {
        self.listening.as_ref()
    }

    pub(super) const fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// What a session is started with: the server gives up on us when we are gone, and an acknowledged commit is durable.
    fn of(&self, limit: Duration, more: &[(&str, &str)]) -> PgConnectOptions {
        if self.pooled {
            return self.options.clone();
        }
        let settings = [
            ("lock_timeout", LOCK_LIMIT.as_millis().to_string()),
            ("statement_timeout", limit.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", "10000".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("jit", "off".to_owned()),
            ("tcp_keepalives_idle", "30".to_owned()),
            ("tcp_keepalives_interval", "10".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "30000".to_owned()),
        ];
        self.options.clone().options(settings).options(more.iter().copied())
    }

    /// A connection of its own, for whoever does more than one statement.
    pub(super) async fn connect(&self) -> Result<PgConnection, Error> {
        connect(&self.options).await
    }
}

fn options(url: &PostgresUrl) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.driver_url().as_str())
        .map_err(|error| Error::Unusable(format!("database {}: {error}", DatabaseUrl::Postgres(url.clone()))))?;
    let options = options.disable_statement_logging();
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("freightliner"),
    })
}

/// Closes a connection with a word to the server.
pub(super) async fn part(connection: PgConnection) {
    match tokio::time::timeout(ANSWER_GRACE, connection.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "closing a connection"),
        Err(_) => tracing::debug!("closing a connection: the server does not answer"),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    match tokio::time::timeout(CONNECT_LIMIT, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if error.as_database_error().is_some() => Err(error.into()),
        Ok(Err(error)) => Err(unreachable_server(options, &error.to_string())),
        Err(_) => Err(unreachable_server(options, &format!("no answer within {CONNECT_LIMIT:?}"))),
    }
}

fn unreachable_server(options: &PgConnectOptions, why: &str) -> Error {
    let place = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| format!("{}, port {}", socket.display(), options.get_port()),
    );
    Error::Backend { message: format!("the server at {place} cannot be reached: {why}"), busy: false }
}

struct Idle {
    connection: PgConnection,
    since: BootTime,
}

/// Connections for one kind of statements, made when they are needed.
pub(super) struct Connections {
    options: PgConnectOptions,
    pooled: bool,
    clock: Clock,
    limit: Duration,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
}

impl Connections {
    /// At most `most` at a time, statements of at most `limit`.
    pub(super) fn new(
        sessions: &Sessions,
        clock: &Clock,
        most: usize,
        limit: Duration,
        settings: &[(&str, &str)],
    ) -> Self {
        Self {
            options: sessions.of(limit, settings),
            pooled: sessions.pooled,
            clock: clock.clone(),
            limit,
            idle: Mutex::default(),
            permits: Semaphore::new(most),
        }
    }

    /// The rows of a statement. While the server cannot be reached it is tried again for a few seconds; when the answer was
    /// lost, only what may happen again.
    pub(super) async fn rows(&self, again: Again, statement: &Statement) -> Result<Vec<PgRow>, Failed> {
        if let Some(wrong) = &statement.wrong {
            return Err(Failed::before(Error::Invalid(wrong.clone())));
        }
        let mut pauses = PAUSES.into_iter();
        loop {
            let failed = match self.once(again, statement).await {
                Ok(rows) => return Ok(rows),
                Err(failed) => failed,
            };
            let may = failed.error.is_transient()
                && !failed.late
                && (again == Again::Harmless || !failed.unknown)
                && !(again == Again::NeverNorLocked && failed.is_locked())
                // The server is there and has its reason; its state says whether another try helps.
                && (failed.state.is_none() || matches!(failed.error, Error::Backend { busy: true, .. }) || is_restart(&failed));
            match pauses.next().filter(|_| may) {
                Some(pause) => {
                    tracing::debug!(error = %failed.error, "trying again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(Failed { unknown: failed.unknown && again != Again::Harmless, ..failed }),
            }
        }
    }

    /// The one row that a statement always has.
    pub(super) async fn row(&self, statement: &Statement) -> Result<PgRow, Error> {
        let row = self.rows(Again::Harmless, statement).await?.into_iter().next();
        row.ok_or_else(|| Error::Unusable("a statement gave no row".to_owned()))
    }

    async fn once(&self, again: Again, statement: &Statement) -> Result<Vec<PgRow>, Failed> {
        let _permit = self.permits.acquire().await.map_err(|_| Failed::before(closed()))?;
        let mut connection = self.take(again).await.map_err(Failed::before)?;
        let answer = tokio::time::timeout(self.limit + ANSWER_GRACE, self.send(&mut connection, statement)).await;
        let error = match answer {
            Ok(Ok(rows)) => {
                self.put_back(connection);
                return Ok(rows);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let message = format!("the server has not answered for {:?}", self.limit + ANSWER_GRACE);
                let error = Error::Backend { message, busy: false };
                return Err(Failed { error, state: None, unknown: true, late: true });
            }
        };
        let (state, fatal) =
            match error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
                Some(error) => {
                    (Some(error.code().to_owned()), matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
                }
                None => (None, true),
            };
        let stale_plan = matches!(state.as_deref(), Some("0A000" | "26000"));
        if !fatal && !stale_plan && self.roll_back(&mut connection).await {
            self.put_back(connection);
        }
        // An error that the server answers with means that it did nothing; when it ends the session, who knows.
        Err(Failed { error: error.into(), state, unknown: fatal, late: false })
    }

    async fn send(&self, connection: &mut PgConnection, statement: &Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query_with(statement.text, statement.arguments.clone());
        if !self.pooled {
            return query.fetch_all(connection).await;
        }
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = 5000; SET LOCAL synchronous_commit = on",
            LOCK_LIMIT.as_millis(),
            self.limit.as_millis()
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
        let rows = query.persistent(false).fetch_all(&mut *connection).await?;
        connection.execute("COMMIT").await?;
        Ok(rows)
    }

    /// After an error: true when the connection can be used again.
    async fn roll_back(&self, connection: &mut PgConnection) -> bool {
        if !self.pooled {
            return true;
        }
        matches!(tokio::time::timeout(ANSWER_GRACE, connection.execute("ROLLBACK")).await, Ok(Ok(_)))
    }

    async fn take(&self, again: Again) -> Result<PgConnection, Error> {
        while let Some(mut idle) = self.pop() {
            let stale = self.clock.boot().since(idle.since) > STALE;
            if again == Again::Harmless
                || !stale
                || matches!(tokio::time::timeout(ANSWER_GRACE, idle.connection.ping()).await, Ok(Ok(())))
            {
                return Ok(idle.connection);
            }
        }
        connect(&self.options).await
    }

    fn pop(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
    }

    /// The one used last is used next, so that those which a busy time needed grow old.
    fn put_back(&self, connection: PgConnection) {
        let now = self.clock.boot();
        let mut idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        idle.retain(|idle| now.since(idle.since) < IDLE_LIMIT);
        idle.push(Idle { connection, since: now });
    }

    /// Closes all connections; later calls fail.
    pub(super) async fn close(&self) {
        self.permits.close();
        while let Some(idle) = self.pop() {
            part(idle.connection).await;
        }
    }
}

fn closed() -> Error {
    Error::Unusable("the database is closed; start again".to_owned())
}

/// The server stops, starts, or recovers: wait for it.
fn is_restart(failed: &Failed) -> bool {
    matches!(failed.state.as_deref(), Some("57P01" | "57P02" | "57P03"))
}
