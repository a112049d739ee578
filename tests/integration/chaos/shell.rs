//! A shell inside the hypervisor.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::support::hypervisor::Hypervisor;

/// One that stays: entering the hypervisor anew for each question would take longer than the question.
pub struct Shell {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    pub fn start(hypervisor: &Hypervisor) -> Self {
        let mut process = hypervisor.command("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, stdin, stdout }
    }

    /// Returns what the commands print; as an error if one fails or they take too long.
    pub fn run(&mut self, script: &str) -> Result<String, String> {
        let script = format!("timeout 60 sh -e 2>&1 <<'CHAOS'\n{script}\nCHAOS\nprintf '\\0%s\\n' $?\n");
        self.stdin.write_all(script.as_bytes()).unwrap();
        let (mut text, mut status) = (Vec::new(), String::new());
        self.stdout.read_until(0, &mut text).unwrap();
        self.stdout.read_line(&mut status).unwrap();
        text.pop();
        let text = String::from_utf8_lossy(&text).into_owned();
        if status.trim() == "0" { Ok(text) } else { Err(text) }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
