import type { components, paths } from "./api";

const least: components["schemas"]["PredictRequest"] = { features: { spread: 0.0005, venue: "EBS", open: null } };
const batch: components["schemas"]["BatchRequest"] = { features_list: [least.features], return_proba: true };
const shadow: components["schemas"]["ShadowRequest"] = { model_uri: null };
type Query = NonNullable<paths["/models"]["get"]["parameters"]["query"]>;
const query: Query = {};
type Answer = paths["/predict"]["post"]["responses"][200]["content"]["application/json"];

export function label(answer: Answer): string {
  return `${answer.prediction} ${answer.confidence} ${answer.probabilities?.["-1"] ?? "unknown"}`;
}
export default [least, batch, shadow, query];
