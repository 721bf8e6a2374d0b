//! The Helm chart.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{HELM, KEDA, PYTHON, is_a_command, load, repository, run, sinks_of, succeed, texts};

/// The oldest that the chart is for, and a recent one.
const KUBERNETES: [&str; 2] = ["1.27", "1.35"];

struct Tools {
    helm: std::path::PathBuf,
    python: std::path::PathBuf,
    keda: std::path::PathBuf,
}

fn tools() -> Option<Tools> {
    Some(Tools {
        helm: tallybus_tests::fetched(HELM)?,
        python: tallybus_tests::fetched(PYTHON)?,
        keda: tallybus_tests::fetched(KEDA)?,
    })
}

impl Tools {
    fn template(&self, kubernetes: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.helm);
        command.args(["template", "release"]).arg(repository("deploy/helm/tallybus"));
        command.args(["--namespace", "counters", "--kube-version", kubernetes]).args(more);
        command
    }

    /// The manifests, each sound by its schema.
    fn manifests(&self, kubernetes: &str, values: &Path) -> Vec<Value> {
        let rendered = succeed(self.template(kubernetes, &["--values"]).arg(values));
        let mut command = Command::new(&self.python);
        command.arg(repository("tests/servers/manifests.py")).arg(kubernetes).arg(&self.keda);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(rendered.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(
            output.status.success(),
            "{} for {kubernetes}: {}",
            values.display(),
            String::from_utf8(output.stderr).unwrap()
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn values() -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(repository("deploy/helm/tallybus/ci")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn named<'m>(manifests: &'m [Value], kind: &str, name: &str) -> Option<&'m Value> {
    manifests.iter().find(|manifest| manifest["kind"] == kind && manifest["metadata"]["name"] == name)
}

#[test]
fn every_set_of_values_becomes_sound_manifests_and_settings() {
    let Some(tools) = tools() else { return };
    let mut scaled_by_keda = 0;
    for values in values() {
        let mut lint = Command::new(&tools.helm);
        lint.args(["lint", "--strict", "--kube-version", KUBERNETES[1]]).arg(repository("deploy/helm/tallybus"));
        succeed(lint.arg("--values").arg(&values));
        for kubernetes in KUBERNETES {
            let manifests = tools.manifests(kubernetes, &values);
            let mut workers = 0;
            for deployment in manifests.iter().filter(|manifest| manifest["kind"] == "Deployment") {
                check_worker(deployment, &manifests);
                workers += 1;
            }
            assert!(workers > 0, "{}", values.display());
            for scaled in manifests.iter().filter(|manifest| manifest["kind"] == "ScaledObject") {
                check_scaled(scaled, &manifests);
                scaled_by_keda += 1;
            }
        }
    }
    assert!(scaled_by_keda > 0);
}

#[test]
fn monitoring_is_off_by_default_and_scrapes_with_the_token_by_the_published_rules() {
    let Some(tools) = tools() else { return };
    let with = tools.manifests(KUBERNETES[1], &repository("deploy/helm/tallybus/ci/monitoring.yaml"));
    let one = |kind: &str| {
        let mut found = with.iter().filter(|manifest| manifest["kind"] == kind);
        let first = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
        assert!(found.next().is_none(), "more than one {kind}");
        first
    };
    let (service, monitor, rule) = (one("Service"), one("ServiceMonitor"), one("PrometheusRule"));
    let pod = &one("Deployment")["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    for (name, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(labels[name], *value, "the service finds no pod");
    }
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][name], *value, "the monitor finds no service");
    }
    let (port, endpoint) = (&service["spec"]["ports"][0], &monitor["spec"]["endpoints"][0]);
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &"/metrics".into()));
    let container = &pod["spec"]["containers"][0];
    assert_eq!((&container["ports"][0]["name"], &port["port"]), (&port["targetPort"], &9464.into()));
    let token = container["env"].as_array().unwrap().iter().find(|one| one["name"] == "TALLYBUS_STATUS_TOKEN").unwrap();
    assert_eq!(token["valueFrom"]["secretKeyRef"], endpoint["authorization"]["credentials"]);
    assert_eq!(one("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"], port["name"]);
    let job = monitor["spec"]["jobLabel"].as_str().unwrap();
    assert_eq!(service["metadata"]["labels"][job], "tallybus", "the job of the alert rules");
    assert!(rule["spec"]["groups"][0]["rules"].as_array().unwrap().len() > 5);
    for object in [monitor, rule] {
        assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
    }
    let published = std::fs::read_to_string(repository("deploy/monitoring/alerts.yaml")).unwrap();
    let of_chart = std::fs::read_to_string(repository("deploy/helm/tallybus/files/alerts.yaml")).unwrap();
    assert_eq!(published, of_chart, "copy deploy/monitoring/alerts.yaml to deploy/helm/tallybus/files/");

    let without = tools.manifests(KUBERNETES[1], &repository("deploy/helm/tallybus/ci/influx.yaml"));
    for kind in ["Service", "ServiceMonitor", "PrometheusRule"] {
        assert!(!without.iter().any(|manifest| manifest["kind"] == kind), "{kind}");
    }
    let without = repository("deploy/helm/tallybus/ci/influx.yaml");
    for kind in ["serviceMonitor", "prometheusRule"] {
        let wanted = format!("monitoring.{kind}.enabled=true");
        let (is_rendered, _, told) =
            run(tools.template(KUBERNETES[1], &["--set", &wanted]).arg("--values").arg(&without));
        assert!(!is_rendered && told.contains(&format!("monitoring.{kind} needs monitoring.enabled")), "{told}");
    }
    let values = repository("deploy/helm/tallybus/ci/monitoring.yaml");
    let no_token = ["--set", "monitoring.tokenSecret.name="];
    let (is_rendered, _, told) = run(tools.template(KUBERNETES[1], &no_token).arg("--values").arg(values));
    assert!(!is_rendered && told.contains("monitoring.tokenSecret.name is empty"), "{told}");
}

fn check_worker(deployment: &Value, manifests: &[Value]) {
    let name = deployment["metadata"]["name"].as_str().unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let containers: Vec<&Value> = ["initContainers", "containers"]
        .iter()
        .flat_map(|key| pod[key].as_array().map(Vec::as_slice).unwrap_or_default())
        .collect();
    for container in &containers {
        let confined = &container["securityContext"];
        assert_eq!(confined["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(confined["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(confined["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        is_a_command(&texts(&container["args"]));
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
    assert_eq!(pod["automountServiceAccountToken"], false, "{name}");

    let worker = &pod["containers"][0];
    for probe in ["livenessProbe", "readinessProbe"] {
        let command = texts(&worker[probe]["exec"]["command"]);
        assert_eq!(command[0], "tallybus");
        is_a_command(&command[1..]);
        assert!(texts(&worker["args"]).contains(&command[2].replace("--file", "--health-file")), "{command:?}");
    }

    // The settings hold the bus and this sink alone, and the pod has every secret that they name.
    let settings = named(manifests, "ConfigMap", name).unwrap()["data"]["tallybus.toml"].as_str().unwrap();
    let sinks = sinks_of(settings);
    assert_eq!(sinks.len(), 1, "{settings}");
    assert!(texts(&worker["args"]).contains(&format!("--sink={}", sinks[0])));
    let variables: Vec<String> = worker["env"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap().to_owned())
        .collect();
    let files: Vec<String> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|volume| volume["projected"]["sources"].as_array().map(Vec::as_slice).unwrap_or_default())
        .map(|source| source["secret"]["items"][0]["path"].as_str().unwrap().to_owned())
        .collect();
    load(settings, "/run/secrets/tallybus/", &files, &variables, &sinks);

    let selector = &deployment["spec"]["selector"]["matchLabels"];
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (key, value) in selector.as_object().unwrap() {
        assert_eq!(&labels[key], value, "{name} does not select its own pods");
    }
    if let Some(budget) = named(manifests, "PodDisruptionBudget", name) {
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], selector, "{name}");
    }
    // One that is there already has another name than the chart gives.
    let account = pod["serviceAccountName"].as_str().unwrap();
    assert_eq!(named(manifests, "ServiceAccount", account).is_some(), account == name, "{name}: {account}");
    let is_scaled =
        ["ScaledObject", "HorizontalPodAutoscaler"].iter().any(|kind| named(manifests, kind, name).is_some());
    assert_eq!(deployment["spec"]["replicas"].is_null(), is_scaled, "{name}: two that set the replicas fight");
}

fn check_scaled(scaled: &Value, manifests: &[Value]) {
    let spec = &scaled["spec"];
    let target = spec["scaleTargetRef"]["name"].as_str().unwrap();
    let settings = named(manifests, "ConfigMap", target).unwrap()["data"]["tallybus.toml"].as_str().unwrap();
    assert!(named(manifests, "Deployment", target).is_some(), "{target} is not there");
    for trigger in spec["triggers"].as_array().unwrap() {
        let metadata = &trigger["metadata"];
        assert!(metadata.as_object().unwrap().values().all(Value::is_string), "KEDA takes texts only: {metadata}");
        match trigger["type"].as_str().unwrap() {
            "kafka" => {
                assert_eq!(metadata["consumerGroup"], format!("tallybus.{}", sinks_of(settings)[0]));
                assert!(metadata["lagThreshold"].as_str().unwrap().parse::<u64>().unwrap() > 0);
            }
            "prometheus" => {
                assert_eq!(trigger["metricType"], "Value", "the lag is not to be divided by the number of workers");
                assert!(metadata["threshold"].as_str().unwrap().parse::<u64>().unwrap() > 0);
                assert!(metadata["query"].as_str().unwrap().contains(&format!("tallybus.{}", sinks_of(settings)[0])));
            }
            other => panic!("unknown trigger {other}"),
        }
    }
}

#[test]
fn seconds_of_lag_become_messages_for_the_kafka_scaler() {
    let Some(tools) = tools() else { return };
    let manifests = tools.manifests(KUBERNETES[1], &repository("deploy/helm/tallybus/ci/keda-kafka.yaml"));
    let scaled = named(&manifests, "ScaledObject", "release-tallybus-influx").unwrap();
    // 30 seconds of 5,000 messages a second.
    assert_eq!(scaled["spec"]["triggers"][0]["metadata"]["lagThreshold"], "150000");
}

#[test]
fn what_cannot_work_is_refused_before_it_is_installed() {
    let Some(tools) = tools() else { return };
    let influx = repository("deploy/helm/tallybus/ci/influx.yaml");
    let keda = repository("deploy/helm/tallybus/ci/keda-kafka.yaml");
    let cases: [(&Path, &str, &str); 13] = [
        (&influx, "bus.brokers=", "bus.brokers is empty"),
        (&influx, "bus.kind=embedded", "kind"),
        (&influx, "sinks.influx.replicas=13", "but the topic has 12 partitions"),
        (&keda, "sinks.influx_v1.autoscaling.maxReplicas=25", "but the topic has 24 partitions"),
        (&keda, "sinks.influx_v1.autoscaling.minReplicas=25", "minReplicas is more than maxReplicas"),
        (&influx, "sinks.influx.settings.token=abc", "token stands in the values as it is"),
        (&keda, "bus.kafka.sasl\\.password=abc", "sasl.password stands in the values as it is"),
        (&influx, "sinks.influx.settings.token=env:OTHER", "name env:OTHER, which neither"),
        (
            &influx,
            "sinks.influx.settings.token=file:/run/secrets/tallybus/x",
            "name file:/run/secrets/tallybus/x, which neither",
        ),
        (&influx, "sinks.influx.replica=2", "replica"),
        (&influx, "sinks.Influx.replicas=1", "Influx"),
        (&influx, "sinks.other.replicas=1", "settings"),
        (&keda, "sinks.influx-v1.settings.kind=sqlite", "would have the same name in Kubernetes"),
    ];
    for (values, set, expected) in cases {
        let mut command = tools.template(KUBERNETES[1], &["--set", set, "--values"]);
        let (well, _, err) = run(command.arg(values));
        assert!(!well && err.contains(expected), "{set}: {err}");
    }
}
