"""What ministack 1.5.33 lacks of logs, metrics, alarms, certificates and custom domains, added to it before it serves. As in
`gaps.py`, each function says what AWS does, and a test in `tests/edge_network/signals.rs` fails when ministack does it by itself.
"""

import hashlib
import json
import re
import threading
import time

from ministack.core.responses import get_account_id, get_region, new_uuid
from ministack.services import acm, cloudwatch, cloudwatch_logs, lambda_svc, route53, tagging
from ministack.services import apigateway_v1 as v1


def alarms_by_dimensions():
    """An alarm watches the metric with exactly its dimensions. ministack takes every metric of the name for it."""
    evaluate, watching = cloudwatch._evaluate_alarm, threading.local()

    class Metrics:
        """All metrics, and for a thread that evaluates an alarm only its own."""

        def __init__(self, every):
            self.every = every

        def items(self):
            dimensions = getattr(watching, "dimensions", None)
            every = self.every.items()
            return every if dimensions is None else [item for item in every if item[0][2] == dimensions]

        def __getattr__(self, name):
            return getattr(self.every, name)

        def __getitem__(self, key):
            return self.every[key]

        def __setitem__(self, key, value):
            self.every[key] = value

        def __delitem__(self, key):
            del self.every[key]

        def __contains__(self, key):
            return key in self.every

        def __iter__(self):
            return iter(self.every)

        def __len__(self):
            return len(self.every)

    def evaluated(alarm):
        watching.dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm.get("Dimensions") or []))
        try:
            evaluate(alarm)
        finally:
            watching.dimensions = None

    cloudwatch._metrics = Metrics(cloudwatch._metrics)
    cloudwatch._evaluate_alarm = evaluated


def metrics_in_logs():
    """CloudWatch makes metrics of log lines in the embedded metric format, and evaluates the alarms on them. ministack does not."""
    emit = lambda_svc._emit_lambda_logs

    def emitted(func, request_id, log_text, *arguments, **named):
        emit(func, request_id, log_text, *arguments, **named)
        for line in (log_text or "").splitlines():
            if line.startswith("{") and '"CloudWatchMetrics"' in line:
                record(line)

    def record(line):
        try:
            values = json.loads(line)
            directives = values["_aws"]["CloudWatchMetrics"]
        except (KeyError, TypeError, ValueError):
            return
        seen = set()
        for directive in directives:
            for names in directive.get("Dimensions") or [[]]:
                dimensions = {name: str(values.get(name, "")) for name in names}
                for metric in directive.get("Metrics") or []:
                    value = values.get(metric["Name"])
                    for one in value if isinstance(value, list) else [value]:
                        if isinstance(one, (int, float)):
                            namespace = directive["Namespace"]
                            unit = metric.get("Unit", "None")
                            cloudwatch.record_metric(namespace, metric["Name"], one, unit, dimensions)
                            seen.add((namespace, metric["Name"]))
        for alarm in list(cloudwatch._alarms.values()):
            if (alarm.get("Namespace"), alarm.get("MetricName")) in seen:
                cloudwatch._evaluate_alarm(alarm)

    lambda_svc._emit_lambda_logs = emitted


# So many lines of an access log are kept: a benchmark must not fill the memory.
KEPT_LINES = 10_000


def access_logs():
    """API Gateway writes a line of the stage's format for each request into the stage's log group. ministack stores the settings."""
    execute = v1.handle_execute

    async def handle_execute(api_id, stage_name, method, path, headers, body, query_params):
        started = time.time()
        answer = await execute(api_id, stage_name, method, path, headers, body, query_params)
        scope = v1.find_api_scope(api_id)
        stage = v1._stages_v1.get_scoped(*scope, api_id, {}).get(stage_name) if scope else None
        settings = (stage or {}).get("accessLogSettings") or {}
        if settings.get("destinationArn"):
            write(settings, variables(scope, api_id, stage_name, method, path, headers, answer, started))
        return answer

    def variables(scope, api_id, stage_name, method, path, headers, answer, started):
        status, said, text = answer
        said = {name.lower(): value for name, value in said.items()}
        resource = matched(scope, api_id, path)
        error = said.get("x-amzn-errortype")
        return {
            "requestId": said.get("x-amzn-requestid") or new_uuid(),
            "extendedRequestId": said.get("x-amz-apigw-id"),
            "requestTimeEpoch": int(started * 1000),
            "domainName": v1._header_ci(headers, "host").split(":")[0],
            "identity.sourceIp": v1._header_ci(headers, "x-forwarded-for").split(",")[0].strip(),
            "identity.userAgent": v1._header_ci(headers, "user-agent"),
            "httpMethod": method,
            "resourcePath": (resource or {}).get("path"),
            "path": f"/{stage_name}{path}",
            "stage": stage_name,
            "status": status,
            "error.responseType": error,
            "responseLatency": int((time.time() - started) * 1000),
            "integrationLatency": None if error else int((time.time() - started) * 1000),
            "responseLength": len(text or b""),
        }

    def matched(scope, api_id, path):
        resources = v1._resources.get_scoped(*scope, api_id, {})
        root = next((one for one in resources.values() if one.get("path") == "/"), None)
        segments = [part for part in path.split("?")[0].strip("/").split("/") if part]
        if not root or not segments:
            return root
        return v1._match_recursive(resources, root["id"], segments, {})[0]

    def write(settings, known):
        def value(match):
            found = known.get(match.group(1))
            return "-" if found in (None, "") else json.dumps(str(found))[1:-1]

        line = re.sub(r"\$context\.([A-Za-z]+(?:\.[A-Za-z]+)*)", value, settings.get("format") or "")
        _arn, _aws, _logs, region, account, _group, name = settings["destinationArn"].split(":")[:7]
        group = cloudwatch_logs._log_groups.get_scoped(account, region, name, None)
        if group is None:
            return
        now = int(time.time() * 1000)
        stream = group["streams"].setdefault(
            "access",
            {
                "events": [],
                "uploadSequenceToken": "1",
                "creationTime": now,
                "firstEventTimestamp": now,
                "lastEventTimestamp": now,
                "lastIngestionTime": now,
            },
        )
        stream["events"].append({"timestamp": now, "message": line, "ingestionTime": now, "eventId": new_uuid()})
        stream["lastEventTimestamp"] = stream["lastIngestionTime"] = now
        del stream["events"][:-KEPT_LINES]

    v1.handle_execute = handle_execute


def certificates():
    """ACM issues a certificate when it finds the proof in DNS, and names the proof after the account and the name. In ministack a
    certificate is issued at once, proof or not."""
    shape, request, listing = acm._cert_shape, acm._request_certificate, acm._list_certificates

    def options(domain, method):
        proof = hashlib.sha256(f"{get_account_id()}:{domain}".encode()).hexdigest()
        return {
            "DomainName": domain,
            "ValidationDomain": domain,
            "ValidationMethod": method,
            "ValidationStatus": "PENDING_VALIDATION",
            "ResourceRecord": {
                "Name": f"_{proof[:32]}.{domain.removeprefix('*.')}.",
                "Type": "CNAME",
                "Value": f"_{proof[32:]}.acm-validations.aws.",
            },
        }

    def requested(data):
        answer = request(data)
        if answer[0] == 200:
            certificate = acm._certificates[json.loads(answer[2])["CertificateArn"]]
            certificate["Status"] = "PENDING_VALIDATION"
            certificate["DomainValidationOptions"] = [
                options(one["DomainName"], one["ValidationMethod"]) for one in certificate["DomainValidationOptions"]
            ]
        return answer

    def look(certificate):
        if certificate["Status"] != "PENDING_VALIDATION":
            return
        for option in certificate["DomainValidationOptions"]:
            if option["ValidationStatus"] != "SUCCESS" and published(option["ResourceRecord"]):
                option["ValidationStatus"] = "SUCCESS"
        if all(option["ValidationStatus"] == "SUCCESS" for option in certificate["DomainValidationOptions"]):
            certificate["Status"] = "ISSUED"

    def published(proof):
        same = lambda one, other: one.rstrip(".").lower() == other.rstrip(".").lower()  # noqa: E731
        return any(
            same(record["Name"], proof["Name"])
            and record["Type"] == "CNAME"
            and any(same(value, proof["Value"]) for value in record.get("ResourceRecords") or [])
            for records in route53._records.values()
            for record in records
        )

    def shaped(certificate):
        look(certificate)
        fields = shape(certificate)
        if certificate["Status"] == "PENDING_VALIDATION":
            for field in ("IssuedAt", "NotBefore", "NotAfter"):
                fields.pop(field, None)
        return fields

    def listed(data):
        for certificate in acm._certificates.values():
            look(certificate)
        return listing(data)

    acm._cert_shape, acm._request_certificate, acm._list_certificates = shaped, requested, listed


def custom_domains():
    """A custom domain has a status, a regional host name of its own and the hosted zone of its region, and can be changed, like
    its mappings. In ministack it has no status, the host name is the domain's with an ending, and PATCH is unknown."""
    create, handle = v1._create_domain_name, v1.handle_request

    # <https://docs.aws.amazon.com/general/latest/gr/apigateway.html>
    zones = {"us-east-1": "Z1UJRXOUMOOFQ8", "us-east-2": "ZOJJZC49E0EPZ", "us-west-2": "Z2OJLYMUO9EFXC"}

    def created(data):
        name = data.get("domainName", "")
        if name in v1._domain_names:
            return v1._v1_error("BadRequestException", "The domain name you provided already exists.", 400)
        answer = create(data)
        domain = v1._domain_names.get(name)
        if answer[0] != 201 or domain is None:
            return answer
        own = hashlib.sha256(f"{get_account_id()}:{get_region()}:{name}".encode()).hexdigest()[:10]
        domain["domainNameStatus"] = "AVAILABLE"
        domain["regionalDomainName"] = f"d-{own}.execute-api.{get_region()}.amazonaws.com"
        domain["regionalHostedZoneId"] = zones.get(get_region(), "Z1UJRXOUMOOFQ8")
        v1._domain_names[name] = domain
        return v1._v1_response(domain, 201)

    async def handle_request(method, path, headers, body, query_params):
        parts = [part for part in path.strip("/").split("/") if part]
        if method == "PATCH" and parts[:1] == ["domainnames"] and len(parts) in (2, 4):
            return patched(parts, json.loads(body or "{}").get("patchOperations") or [])
        answer = handle(method, path, headers, body, query_params)
        return answer if isinstance(answer, tuple) else await answer

    def patched(parts, operations):
        name = parts[1]
        if len(parts) == 2:
            target = v1._domain_names.get(name)
        else:
            target = v1._base_path_mappings.get(name, {}).get(parts[3].replace("%28none%29", "(none)"))
        if target is None:
            return v1._v1_error("NotFoundException", "Invalid domain name or mapping identifier specified", 404)
        for operation in operations:
            field = operation["path"].strip("/")
            # The path's own spelling: <https://docs.aws.amazon.com/apigateway/latest/api/patch-operations.html>
            target[{"restapiId": "restApiId"}.get(field, field)] = operation.get("value")
        return v1._v1_response(target)

    v1._create_domain_name, v1.handle_request = created, handle_request


def tags_of_signals():
    """The tagging API lists alarms and certificates too. ministack leaves them out."""

    def of_alarms():
        for arn, tags in list(cloudwatch._resource_tags.items()):
            if arn.split(":")[3] == get_region():
                yield arn, tagging._normalise_flat(tags)

    def of_certificates():
        for arn, certificate in acm._certificates.items():
            yield arn, certificate.get("Tags") or []

    tagging._COLLECTORS.update(cloudwatch=of_alarms, acm=of_certificates)


def dashboard_listing():
    """ListDashboards says when each was changed, in CBOR as the number of seconds that Smithy's protocol demands. ministack sends
    a text, which an SDK refuses, and with it the whole listing."""
    original = cloudwatch._list_dashboards

    def listed(parameters, data, is_cbor, is_json=False):
        if not is_cbor:
            return original(parameters, data, is_cbor, is_json)
        entries = json.loads(original(parameters, data, False, True)[2])["DashboardEntries"]
        for entry in entries:
            changed = cloudwatch._dashboards[entry["DashboardName"]]["LastModified"]
            entry["LastModified"] = cloudwatch._cbor_timestamp(changed)
        return cloudwatch._cbor_ok({"DashboardEntries": entries})

    cloudwatch._list_dashboards = listed


def all_of_them():
    alarms_by_dimensions()
    metrics_in_logs()
    access_logs()
    certificates()
    custom_domains()
    tags_of_signals()
    dashboard_listing()
