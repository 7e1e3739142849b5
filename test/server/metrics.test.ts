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

  it('tells of queue and jobs what rows say, and leaves them out while the database does not answer', async () => {
    const metrics = createMetrics();
    let isDown = false;
    const job = { name: 'key-rotation', failures: 2, lastSucceededAt: 5_000, overdueMs: 1_500 };
    const standing = {
      pending: { due: 3, waiting: 4 },
      oldestPendingMs: 7_000,
      overdueSecrets: 2,
      jobs: [job],
    };
    metrics.watch(() => (isDown ? Promise.reject(new Error('down')) : Promise.resolve(standing)));
    metrics.job('key-rotation', 'failed', 250);
    const lines = (await metrics.text()).split('\n');
    for (const line of [
      'countersign_deliveries_pending{state="due"} 3',
      'countersign_deliveries_pending{state="waiting"} 4',
      'countersign_deliveries_oldest_pending_seconds 7',
      'countersign_secrets_overdue 2',
      'countersign_job_failures{job="key-rotation"} 2',
      'countersign_job_overdue_seconds{job="key-rotation"} 1.5',
      'countersign_job_last_success_timestamp_seconds{job="key-rotation"} 5',
      'countersign_job_runs_total{job="key-rotation",outcome="failed"} 1',
      'countersign_job_duration_seconds_sum{job="key-rotation"} 0.25',
      'countersign_standing_read 1',
    ])
      expect(lines).toContain(line);
    isDown = true;
    const text = await metrics.text();
    expect(text).toContain('countersign_standing_read 0');
    expect(text).not.toContain('countersign_job_failures{');
  });

  it('shares nothing with the metrics of another server in the process', async () => {
    createMetrics().verification('valid');
    expect(await createMetrics().text()).not.toContain('outcome="valid"');
  });
});
