//! Leaving secrets out: passwords, tokens and keys, wherever they turn up.
//!
//! vifd's configuration holds none, but names the files that do; people write them elsewhere all the same, and programs
//! log them. So they are looked for by what they look like, by the keys that they stand behind, and by their values where
//! those can be known.

use std::{env, fs};

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
pub(super) const REMOVED: &str = "<removed>";
/// Anything shorter would be found everywhere.
const SHORTEST: usize = 4;

/// What is known of secrets.
#[derive(Debug)]
pub(super) struct Secrets {
    patterns: Vec<(Regex, &'static str)>,
    behind_key: Regex,
    key: Regex,
    known: Vec<String>,
}

impl Secrets {
    /// With the secrets in the environment, and those in the files that the configuration names.
    pub(super) fn new(config: &Value) -> Self {
        let regex = |pattern| Regex::new(pattern).expect("it is constant");
        let mut secrets = Self {
            patterns: vec![
                (
                    regex(r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)"),
                    REMOVED,
                ),
                (regex(r"(?i)((?:x-[a-z]+-token|authorization|cookie)[\x22']?\s*[:=]\s*)[^\r\n]+"), "${1}<removed>"),
                (regex(r"://[^/\s@]+@"), "://<removed>@"),
                // Keystone's tokens: Fernet, JWS.
                (regex(r"gAAAA[\w-]{20,}=*"), REMOVED),
                (regex(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), REMOVED),
            ],
            behind_key: regex(
                r#"(?i)([\w.-]*(?:pass(?:word|wd|phrase)|secret|token|credential|api_?key)[\w.-]*)(["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|[^\s,;&"']+)"#,
            ),
            key: regex(r"(?i)pass(?:word|wd|phrase)|secret|token|credential|api_?key"),
            known: Vec::new(),
        };
        let variables =
            env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let of_environment: Vec<_> =
            variables.filter(|(key, _)| secrets.is_secret(key)).map(|(_, value)| value).collect();
        of_environment.into_iter().for_each(|value| secrets.learn(&value));
        secrets.learn_from(config);
        secrets
    }

    /// Takes out of a text what is secret.
    pub(super) fn strip(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for known in &self.known {
            text = text.replace(known, REMOVED);
        }
        for (pattern, replacement) in &self.patterns {
            text = pattern.replace_all(&text, *replacement).into_owned();
        }
        let behind_key = |found: &Captures| {
            if names_a_file(&found[1]) { found[0].to_owned() } else { format!("{}{}{REMOVED}", &found[1], &found[2]) }
        };
        self.behind_key.replace_all(&text, behind_key).into_owned()
    }

    /// Takes out of a document what is secret.
    pub(super) fn strip_all(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.strip(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.strip_all(value)),
            Value::Object(object) => {
                for (key, value) in object {
                    if self.is_secret(key) && (value.is_string() || value.is_array()) {
                        *value = REMOVED.into();
                    } else {
                        self.strip_all(value);
                    }
                }
            }
            _ => {}
        }
    }

    fn is_secret(&self, key: &str) -> bool {
        self.key.is_match(key) && !names_a_file(key)
    }

    fn learn(&mut self, secret: &str) {
        if secret.trim().len() >= SHORTEST {
            self.known.push(secret.trim().to_owned());
        }
    }

    /// The values behind secret keys, and the content of the files that hold a secret.
    fn learn_from(&mut self, config: &Value) {
        match config {
            Value::Array(values) => values.iter().for_each(|value| self.learn_from(value)),
            Value::Object(object) => {
                for (key, value) in object {
                    match value {
                        Value::String(path) if names_a_file(key) && self.key.is_match(key) => {
                            self.learn(&fs::read_to_string(path).unwrap_or_default());
                        }
                        Value::String(secret) if self.is_secret(key) => self.learn(secret),
                        value => self.learn_from(value),
                    }
                }
            }
            _ => {}
        }
    }
}

fn names_a_file(key: &str) -> bool {
    key.ends_with("_file") || key.ends_with("_path")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_found_by_its_look_its_key_and_its_value() {
        let secrets = Secrets::new(&json!({ "tcp": { "keystone": { "password": "hunter22", "user": "vifd" } } }));
        for (text, stripped) in [
            ("logged in with hunter22!", "logged in with <removed>!"),
            ("X-Auth-Token: abc def\nnext", "X-Auth-Token: <removed>\nnext"),
            ("password = 'a b' # x", "password = <removed> # x"),
            ("OS_PASSWORD=s3cret other=1", "OS_PASSWORD=<removed> other=1"),
            (r#"{"admin_token":"x"}"#, r#"{"admin_token":<removed>}"#),
            ("password_file = '/etc/vifd/p'", "password_file = '/etc/vifd/p'"),
            ("https://u:p@keystone/v3", "https://<removed>@keystone/v3"),
            ("got gAAAAABh0123456789012345678901234567890_-A==", "got <removed>"),
            ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a <removed> b"),
            ("-----BEGIN PRIVATE KEY-----\nMIIE", "<removed>"),
            ("tokens cannot be checked", "tokens cannot be checked"),
        ] {
            assert_eq!(secrets.strip(text), stripped);
        }
        let mut value = json!({ "token": "x", "tokens": 7, "list": [{ "why": "hunter22" }], "key": "/etc/k.pem" });
        secrets.strip_all(&mut value);
        assert_eq!(value, json!({ "token": REMOVED, "tokens": 7, "list": [{ "why": REMOVED }], "key": "/etc/k.pem" }));
    }
}
