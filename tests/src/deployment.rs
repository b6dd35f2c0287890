//! A stack in a local cloud that is deployed, changed and deployed again by the command line.

use std::path::Path;

use bootstrap::stack::Stack;
use infra::spec::{Source, Spec};
use serde_json::Value;

use crate::{CloudFolder, run, run_json};

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

    fn of<'s>(&'s self, command: &'s str, config: &'s str, more: &[&'s str]) -> Vec<&'s str> {
        let mut all = vec![
            command,
            "--local",
            "--dir",
            self.folder.path(),
            "--config",
            config,
        ];
        all.extend(["--output", "json"]);
        all.extend(more);
        all
    }

    /// What `up` says.
    pub fn up(&self, more: &[&str]) -> Value {
        let config = self.config();
        run_json(&self.of("up", &config, more))
    }

    /// What `up` would do.
    pub fn plan(&self) -> Value {
        let config = self.config();
        let output = run(&self.of("plan", &config, &[]));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no plan: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What `down` says.
    pub fn down(&self) -> Value {
        let config = self.config();
        run_json(&self.of("down", &config, &["--yes"]))
    }

    /// `up` fails; what it says.
    pub fn refused(&self, more: &[&str]) -> String {
        self.fails("up", more)
    }

    /// A command fails; what it says.
    pub fn fails(&self, command: &str, more: &[&str]) -> String {
        let config = self.config();
        let output = run(&self.of(command, &config, more));
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
