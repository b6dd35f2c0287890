//! A stack in a local cloud that is deployed, changed and deployed again by the command line.

use std::path::Path;
use std::process::Output;

use bootstrap::stack::Stack;
use infra::spec::{Source, Spec};
use serde_json::Value;

use crate::{CloudFolder, run};

/// A configuration file and the cloud that it is deployed in.
#[derive(Debug)]
pub struct Deployment<'a> {
    folder: &'a CloudFolder,
    /// Outside of the cloud's folder, which belongs to the cloud.
    files: tempfile::TempDir,
}

impl<'a> Deployment<'a> {
    /// Nothing is deployed yet.
    pub fn new(folder: &'a CloudFolder) -> Self {
        let files = tempfile::tempdir().expect("a temporary folder");
        Deployment { folder, files }
    }

    /// A folder for what a deployment needs.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The path of the configuration.
    pub fn config(&self) -> String {
        self.files.path().join("stack.toml").display().to_string()
    }

    /// The configuration from now on.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.config(), text).expect("the folder is ours");
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let config = self.config();
        let mut all: Vec<&str> = command.split(' ').collect();
        all.extend(["--local", "--dir", self.folder.path()]);
        all.extend(["--config", &config, "--output", "json"]);
        all.extend(more);
        run(&all)
    }

    /// A command, `keys list` among them, goes well; what it says.
    pub fn json(&self, command: &str, more: &[&str]) -> Value {
        let output = self.run(command, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command}` failed: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("`{command}`: {error}"))
    }

    /// What `up` says.
    pub fn up(&self, more: &[&str]) -> Value {
        self.json("up", more)
    }

    /// What `up` would do.
    pub fn plan(&self) -> Value {
        let output = self.run("plan", &[]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no plan: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What `down` says.
    pub fn down(&self) -> Value {
        self.json("down", &["--yes"])
    }

    /// `up` fails; what it says.
    pub fn refused(&self, more: &[&str]) -> String {
        self.fails("up", more)
    }

    /// A command fails; what it says.
    pub fn fails(&self, command: &str, more: &[&str]) -> String {
        let output = self.run(command, more);
        assert!(!output.status.success(), "`{command}` went well");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Clients of the stack with this configuration, and its cloud.
    pub async fn stack(&self, text: &str) -> (Stack, bootstrap::local::Cloud) {
        let cloud = bootstrap::local::attach(Path::new(self.folder.path()))
            .await
            .expect("it runs");
        let spec = Spec::load(&Source::file("stack.toml", text)).expect("it is right");
        let stack = Stack::on_local(spec, cloud.clone()).await.expect("it answers");
        (stack, cloud)
    }
}
