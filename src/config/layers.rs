//! What the configuration is made of: the file, over it the environment, over that the command line.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    Config, DEFAULT_PATH,
    document::{self, effective, joined, leaves},
};

/// A variable of the environment that begins so is a key: `VIFD_HTTP__CONNECTIONS` is `http.connections`.
const PREFIX: &str = "VIFD_";

/// Where to read the configuration, now and when it is read again.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The file, if one is named; else [`DEFAULT_PATH`], if it is there.
    file: Option<PathBuf>,
    /// In rising precedence.
    assignments: Vec<Assignment>,
}

/// One key that is set outside of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    key: String,
    value: Value,
    origin: Origin,
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// In a line of the file, from 1.
    Line(usize),
    /// In this variable.
    Variable(String),
    /// By this option.
    Option(&'static str),
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is configured.
    pub config: Config,
    /// The file, whether it is there or not.
    pub path: PathBuf,
    origins: BTreeMap<String, Origin>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key or value is wrong. The text shows the line and points at it.
    #[error("{}:{line}: {text}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the offending line.
        text: String,
    },
    /// What a variable or an option sets is wrong.
    #[error("{origin}: {text}")]
    Override {
        /// The variable, or the option and its key.
        origin: String,
        /// What is wrong.
        text: String,
    },
}

impl Layers {
    /// The file, this process's environment, and what the command line says.
    ///
    /// # Errors
    /// A variable begins with `VIFD_` and is no key.
    pub fn new(file: Option<PathBuf>, options: Vec<Assignment>) -> Result<Self, ConfigError> {
        Self::with(file, env::vars_os(), options)
    }

    fn with(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        options: Vec<Assignment>,
    ) -> Result<Self, ConfigError> {
        let mut assignments = Vec::new();
        for (name, value) in environment {
            // A name that is no Unicode is not ours.
            let Some((name, key)) = name.to_str().and_then(|name| Some((name, name.strip_prefix(PREFIX)?))) else {
                continue;
            };
            let assignment = match value.to_str() {
                Some(value) => {
                    let key = key.to_lowercase().replace("__", ".");
                    Assignment::new(&key, value, Origin::Variable(name.to_owned()))
                }
                None => Err("the value is not Unicode".to_owned()),
            };
            assignments.push(assignment.map_err(|text| ConfigError::Override { origin: name.to_owned(), text })?);
        }
        assignments.sort_by(|a, b| a.key.cmp(&b.key));
        assignments.extend(options);
        Ok(Self { file, assignments })
    }

    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }

    /// Reads the file, and puts what overrides it on top.
    ///
    /// # Errors
    /// The file cannot be read, or a key or value is wrong.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let path = self.path().to_owned();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if self.file.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let config = self.parse(&path, &text)?;
        let mut origins = BTreeMap::new();
        if let Ok(table) = DeTable::parse(&text) {
            add_lines(&mut origins, "", table.get_ref(), &text);
        }
        let overrides = self.assignments.iter().map(|set| (set.key.clone(), set.origin.clone()));
        origins.extend(overrides);
        Ok(Loaded { config, path, origins })
    }

    fn parse(&self, path: &Path, text: &str) -> Result<Config, ConfigError> {
        // Errors of the file itself know its lines.
        let file = parse_file::<Config>(path, text);
        if self.assignments.is_empty() {
            return file;
        }
        let table: Table = parse_file(path, text)?;
        let error = match overridden(&table, &self.assignments) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        file?;
        let wrong = |set: &&Assignment| overridden(&table, std::slice::from_ref(*set)).is_err();
        let blamed: Vec<&Assignment> = match self.assignments.iter().find(wrong) {
            Some(one) => vec![one],
            None => self.assignments.iter().collect(),
        };
        let origin: Vec<String> = blamed.into_iter().map(|set| set.origin.with(&set.key)).collect();
        Err(ConfigError::Override { origin: origin.join(", "), text: error.to_string().trim_end().replace('\n', ", ") })
    }
}

/// The text as what it should be.
fn parse_file<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line(text, span.start));
        ConfigError::Parse { path: path.to_owned(), line, text: error.to_string().trim_end().to_owned() }
    })
}

/// The line at this position, from 1.
fn line(text: &str, position: usize) -> usize {
    text.get(..position).unwrap_or_default().matches('\n').count() + 1
}

/// What the file says, but for these keys.
fn overridden(file: &Table, assignments: &[Assignment]) -> Result<Config, toml::de::Error> {
    let mut table = file.clone();
    for set in assignments {
        let (sections, key) = set.key.rsplit_once('.').unwrap_or(("", &set.key));
        let mut section = Some(&mut table);
        for name in sections.split('.').filter(|name| !name.is_empty()) {
            section = section
                .and_then(|section| section.entry(name).or_insert_with(|| Value::Table(Table::new())).as_table_mut());
        }
        // Where the file has something else than a section, the file is wrong, and is found so.
        if let Some(section) = section {
            section.insert(key.to_owned(), set.value.clone());
        }
    }
    Config::deserialize(table)
}

/// The line of each key.
fn add_lines(origins: &mut BTreeMap<String, Origin>, path: &str, section: &DeTable<'_>, text: &str) {
    for (key, value) in section {
        let name = joined(path, key.get_ref());
        match value.get_ref() {
            DeValue::Table(section) => add_lines(origins, &name, section, text),
            _ => drop(origins.insert(name, Origin::Line(line(text, key.span().start)))),
        }
    }
}

impl Assignment {
    /// What `--log` says.
    #[must_use]
    pub fn log(filter: &super::LogFilter) -> Self {
        let value = Value::String(filter.as_str().to_owned());
        Self { key: "log".to_owned(), value, origin: Origin::Option("--log") }
    }

    fn new(key: &str, value: &str, origin: Origin) -> Result<Self, String> {
        let example = leaves(&document::example());
        let value = match example.get(key) {
            // Nobody should have to quote a string twice.
            Some(Value::String(_)) => Value::String(value.to_owned()),
            Some(_) => {
                let parsed = toml::from_str::<Table>(&format!("value = {value}"));
                let parsed = parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
                parsed.ok_or_else(|| format!("{value:?} is not a value of TOML"))?
            }
            None => {
                let near = example.keys().map(|known| (strsim::damerau_levenshtein(known, key), known));
                let near = near.min().filter(|(distance, _)| *distance <= 1 + key.len() / 4);
                let hint = near.map(|(_, known)| format!(", but there is {known}")).unwrap_or_default();
                return Err(format!("there is no key {key}{hint}"));
            }
        };
        Ok(Self { key: key.to_owned(), value, origin })
    }
}

/// As `--set` has it: `http.connections=1024`.
impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("this is not KEY=VALUE, such as http.connections=1024")?;
        Self::new(key.trim(), value.trim(), Origin::Option("--set"))
    }
}

impl Origin {
    /// For an error message: where exactly this key was set.
    fn with(&self, key: &str) -> String {
        match self {
            Self::Option("--set") => format!("--set {key}"),
            origin => origin.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Option(option) => f.write_str(option),
        }
    }
}

impl Loaded {
    /// Every key in force, in TOML, and in a comment where it was set.
    #[must_use]
    pub fn effective(&self) -> String {
        effective(&self.config, |key| match self.origins.get(key) {
            Some(Origin::Line(line)) => format!("{}:{line}", self.path.display()),
            Some(origin) => origin.to_string(),
            None => "default".to_owned(),
        })
    }

    /// The keys whose values differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (mine, theirs) = (leaves(&self.config), leaves(&other.config));
        let differs = |key: &&String| mine.get(*key) != theirs.get(*key);
        let gone = theirs.keys().filter(|key| !mine.contains_key(*key));
        mine.keys().chain(gone).filter(differs).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(environment: &[(&str, &str)], options: &[&str]) -> Result<Layers, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let options = options.iter().map(|option| option.parse()).collect::<Result<_, _>>()?;
        Layers::with(None, environment, options).map_err(|error| error.to_string())
    }

    fn parse(layers: &Layers, text: &str) -> Result<Config, String> {
        layers.parse(Path::new("vifd.toml"), text).map_err(|error| error.to_string())
    }

    fn error(text: &str) -> String {
        parse(&layers(&[], &[]).unwrap(), text).unwrap_err()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse(&layers(&[], &[]).unwrap(), "").unwrap();
        assert!(config.tcp.is_none());
        assert_eq!(config.socket_mode.bits(), 0o660);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let text = error("socket = '/x'\n[libvirt]\nresync_intervall = '5m'\n");
        assert!(text.starts_with("vifd.toml:3: ") && text.contains("resync_intervall"), "{text}");
        let text = error("\n[tcp]\nlisten = '0.0.0.0:9774'\nanyone_on_loopback_is_admin = true\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("not a loopback address"), "{text}");
        let text = error("[tcp]\nlisten = '0.0.0.0:9774'\nproxies = [\n'*.example.org']\n");
        assert!(text.starts_with("vifd.toml:3: ") || text.starts_with("vifd.toml:4: "), "{text}");
        assert!(text.contains("*.example.org"), "{text}");
        let text = error("\n[metrics]\nlisten = '0.0.0.0:9775'\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("every project's names"), "{text}");
        let text = error("[netlink]\nreceive_buffer = 'big'\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("receive_buffer"), "{text}");
        let text = error("[libvirt]\ncall_timeout = '5 parsecs'\n");
        assert!(text.starts_with("vifd.toml:2: ") && text.contains("call_timeout"), "{text}");
        let text = error("a = [");
        assert!(text.starts_with("vifd.toml:1: "), "{text}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            "worker_threads = 0",
            "[http]\nconnections = 0",
            "[http]\nrequests_per_peer = -1",
            "log = 'vifd=loud'",
            "log_format = 'xml'",
            "socket_mode = '9'",
            "socket_mode = '1777'",
            "socket_group = 'no such group'",
            "instance_name_template = 'x'",
        ] {
            error(text);
        }
    }

    #[test]
    fn options_go_before_the_environment_and_that_before_the_file() {
        let file = "worker_threads = 3\nlog = 'warn'\n[http]\nconnections = 5\nidle_timeout = '1m'\n";
        let environment =
            [("VIFD_HTTP__CONNECTIONS", "6"), ("VIFD_LOG", "debug"), ("VIFD_LIBVIRT__URIS", "['test:///default']")];
        let layers = layers(&environment, &["http.connections=7", "socket_mode=600"]).unwrap();
        let config = parse(&layers, file).unwrap();
        assert_eq!((config.worker_threads.get(), config.http.connections.get()), (3, 7));
        assert_eq!((config.log.as_str(), config.socket_mode.bits()), ("debug", 0o600));
        assert_eq!(config.libvirt.uris.unwrap(), ["test:///default"]);
        assert_eq!(config.http.idle_timeout.as_secs(), 60);
    }

    #[test]
    fn what_overrides_may_complete_what_the_file_left_open() {
        let layers = layers(&[("VIFD_TCP__LISTEN", "127.0.0.1:1")], &["tcp.anyone_on_loopback_is_admin=true"]).unwrap();
        assert!(parse(&layers, "[tcp]\nadmin_roles = ['cloud_admin']").unwrap().tcp.is_some());
        assert!(parse(&layers, "").unwrap().tcp.is_some());
    }

    #[test]
    fn a_key_that_does_not_exist_is_an_error_with_a_hint() {
        let text = layers(&[("VIFD_HTTP__CONECTIONS", "6")], &[]).unwrap_err();
        assert_eq!(text, "VIFD_HTTP__CONECTIONS: there is no key http.conections, but there is http.connections");
        assert_eq!(layers(&[], &["colour=red"]).unwrap_err(), "there is no key colour");
        assert!(layers(&[], &["http"]).unwrap_err().contains("KEY=VALUE"));
        assert!(layers(&[], &["http={}"]).unwrap_err().contains("no key"));
        assert!(layers(&[("PATH", "/"), ("VIF", "")], &[]).unwrap().assignments.is_empty());
    }

    #[test]
    fn the_layer_that_is_wrong_is_blamed() {
        let blamed = |environment: &[(&str, &str)], options: &[&str], file: &str| {
            parse(&layers(environment, options).unwrap(), file).unwrap_err()
        };
        let good = ("VIFD_WORKER_THREADS", "2");
        let text = blamed(&[good, ("VIFD_HTTP__CONNECTIONS", "0")], &[], "");
        assert!(text.starts_with("VIFD_HTTP__CONNECTIONS: must be 1 to 100000"), "{text}");
        let text = blamed(&[good], &["http.idle_timeout=soon"], "");
        assert!(text.starts_with("--set http.idle_timeout: \"soon\" is not a duration"), "{text}");
        let text = blamed(&[good], &[], "\nhttp = 3");
        assert!(text.starts_with("vifd.toml:2: "), "{text}");
        let text = blamed(&[], &["http.connections=1"], "\nhttp = 3");
        assert!(text.starts_with("vifd.toml:2: "), "{text}");
        assert!(layers(&[("VIFD_WORKER_THREADS", "1\nlog = 'x'")], &[]).unwrap_err().contains("not a value"));
    }

    #[test]
    fn what_is_in_force_is_shown_with_where_it_was_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vifd.toml");
        fs::write(
            &path,
            "# mine\nworker_threads = 3\n[tcp]\nlisten = '127.0.0.1:1'\nkeystone.password_file = 'p'\n\
            keystone.url = 'http://[::1]:5000/v3'\n",
        )
        .unwrap();
        let environment = [("VIFD_HTTP__CONNECTIONS".into(), "6".into())];
        let layers = Layers::with(Some(path.clone()), environment, vec!["libvirt.uris=[]".parse().unwrap()]).unwrap();
        let loaded = layers.load().unwrap();
        let shown = loaded.effective();
        let path = path.display();
        for line in [
            format!("worker_threads = 3  # {path}:2"),
            "log = \"info\"  # default".to_owned(),
            format!("[tcp]\nlisten = \"127.0.0.1:1\"  # {path}:4"),
            format!("[tcp.keystone]\nurl = \"http://[::1]:5000/v3\"  # {path}:6"),
            "[http]\nconnections = 6  # VIFD_HTTP__CONNECTIONS".to_owned(),
            "[libvirt]\nuris = []  # --set".to_owned(),
        ] {
            assert!(shown.contains(&(line.clone() + "\n")), "{line} is not in\n{shown}");
        }
        // It is a configuration by itself.
        let again = Config::deserialize(shown.parse::<Table>().unwrap()).unwrap();
        assert_eq!(leaves(&again), leaves(&loaded.config));
    }

    #[test]
    fn differences_are_told_by_key() {
        let loaded = |options: &[&str]| {
            let config = parse(&layers(&[], options).unwrap(), "").unwrap();
            Loaded { config, path: PathBuf::new(), origins: BTreeMap::new() }
        };
        let (old, new) = (loaded(&["http.connections=7"]), loaded(&["libvirt.uris=[]", "worker_threads=2"]));
        assert_eq!(new.differences(&old), ["http.connections", "libvirt.uris"]);
        assert_eq!(old.differences(&new), ["http.connections", "libvirt.uris"]);
        assert!(old.differences(&old).is_empty());
    }
}
