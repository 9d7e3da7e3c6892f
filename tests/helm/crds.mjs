// Holds custom resources to the schemas of their CRDs: node crds.mjs FILE.yaml...
// Says one line for each resource and ends with 1 if one is wrong or of an unknown kind.
import fs from "node:fs";
import * as yaml from "js-yaml";

const schemas = {
  "gateway.networking.k8s.io/v1": await import("@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1"),
  "keda.sh/v1alpha1": await import("@kubernetes-models/keda/keda.sh/v1alpha1"),
  "monitoring.coreos.com/v1": await import("@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"),
};

let wrong = 0;
for (const file of process.argv.slice(2)) {
  for (const document of yaml.loadAll(fs.readFileSync(file, "utf8"))) {
    const name = `${document.apiVersion} ${document.kind} ${document.metadata.name}`;
    try {
      const Kind = schemas[document.apiVersion]?.[document.kind];
      if (!Kind) throw new Error("no schema of its kind");
      new Kind(document).validate();
      console.log(`ok ${name}`);
    } catch (error) {
      wrong += 1;
      console.log(`FAIL ${name}: ${error.message}`);
    }
  }
}
process.exit(wrong ? 1 : 0);
