import { describe, expect, it } from 'vitest';
import { createMetrics } from '../../server/metrics.ts';

describe('createMetrics()', () => {
  it('counts requests, verifications, commits and deliveries in the text format of Prometheus', async () => {
    const metrics = createMetrics();
    metrics.httpRequest('/v1/verify', 'POST', 200, 0.002);
    metrics.verification('valid');
    metrics.verification('expired');
    metrics.verification('expired');
    metrics.commit(5);
    metrics.delivery('failed', { firstAttemptMs: 40 });
    metrics.delivery('delivered', { deliveredMs: 5_200 });
    const lines = (await metrics.text()).split('\n');
    for (const line of [
      'countersign_http_requests_seconds_count{route="/v1/verify",method="POST",status="200"} 1',
      'countersign_verifications_total{outcome="valid"} 1',
      'countersign_verifications_total{outcome="expired"} 2',
      'countersign_commit_transactions_sum 5',
      'countersign_deliveries_total{outcome="failed"} 1',
      'countersign_deliveries_total{outcome="delivered"} 1',
      'countersign_delivery_first_attempt_seconds_sum 0.04',
      'countersign_delivery_first_attempt_seconds_count 1',
      'countersign_delivery_delivered_seconds_sum 5.2',
    ])
      expect(lines).toContain(line);
    expect(metrics.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
  });

  it('shares nothing with the metrics of another server in the process', async () => {
    createMetrics().verification('valid');
    expect(await createMetrics().text()).not.toContain('outcome="valid"');
  });
});
