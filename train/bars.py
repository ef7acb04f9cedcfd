"""What each suite's figures must reach."""

import operator
from dataclasses import dataclass
from typing import Literal

from train.intervals import Metric

_COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Bar:
    """`metric` must be `relation` to `limit`: a number, or another metric times `factor`."""

    metric: str
    relation: Literal["<=", ">=", "<", ">"]
    limit: float | str
    factor: float = 1.0

    def limit_value(self, metrics: dict[str, Metric]) -> float | None:
        """The limit as a number; None where it is a metric that was not measured."""
        if not isinstance(self.limit, str):
            return self.limit * self.factor
        other = metrics.get(self.limit)
        return None if other is None else other.value * self.factor

    def held(self, metrics: dict[str, Metric]) -> bool | None:
        """Whether it holds; None where something was not measured."""
        limit = self.limit_value(metrics)
        if limit is None or self.metric not in metrics:
            return None
        return _COMPARE[self.relation](metrics[self.metric].value, limit)


BARS: dict[str, tuple[Bar, ...]] = {
    "codec": (
        Bar("bitrate_bps", "<=", 1000),
        Bar("wer_delta_agent", "<=", 3),
        Bar("estoi_agent", ">=", 0.85),
        Bar("pesq_wb_agent", ">=", 2.2),
        Bar("dnsmos_drop_agent", "<=", 0.3),
        Bar("wer_delta_heldout", "<=", 10),
        Bar("estoi_heldout", ">=", 0.72),
        Bar("pesq_wb_heldout", ">=", 1.6),
        Bar("wer_delta_human", "<=", 15),
        Bar("wer_delta_heldout", "<", "wer_delta_heldout_codec2_2400"),
        Bar("estoi_heldout", ">", "estoi_heldout_codec2_2400"),
        Bar("pesq_wb_heldout", ">", "pesq_wb_heldout_codec2_2400"),
        Bar("bitrate_bps", "<", "bitrate_bps_codec2_2400", 0.5),
        Bar("speaker_similarity_agent", ">=", 0.85),
        Bar("code_use_min", ">=", 0.70),
        Bar("phone_accuracy_code0", ">=", 0.55),
        Bar("phone_accuracy_code0_ratio", ">=", 2),
        Bar("rtf_b1", "<=", 0.08),
        Bar("rtf_b16_per_stream", "<=", 0.02),
    ),
    "dialogue": (
        Bar("call_name_right_seen", ">=", 0.98),
        Bar("arguments_exact_seen", ">=", 0.85),
        Bar("reply_slots_right_seen", ">=", 0.93),
        Bar("agent_wer_delta_seen", "<=", 5),
        Bar("call_complete_ms_seen", "<=", 320),
        Bar("barge_in_stop_ms_seen", "<=", 400),
    ),
    "front_desk": (
        Bar("call_f1_seen", ">=", 0.98),
        Bar("call_args_exact_seen", ">=", 0.97),
        Bar("call_f1_new", ">=", 0.95),
        Bar("call_args_exact_new", ">=", 0.88),
        Bar("call_f1_new_10db", ">=", 0.90),
        Bar("call_args_exact_new_10db", ">=", 0.80),
        Bar("call_f1_new_mulaw", ">=", 0.90),
        Bar("call_args_exact_new_mulaw", ">=", 0.80),
        Bar("correction_pass_seen", ">=", 0.93),
        Bar("correction_pass_new", ">=", 0.80),
        Bar("false_call_rate", "<=", 0.01),
        Bar("need_to_call_ms_p50", "<=", 300),
        Bar("need_to_call_ms_p95", "<=", 600),
        Bar("early_call_share", ">=", 0.80),
        Bar("turn_answered", ">=", 0.99),
        Bar("turn_gap_ms_p50", "<=", 300),
        Bar("turn_gap_ms_p95", "<=", 500),
        Bar("pause_takeover", "<=", 0.06),
        Bar("bargein_yield", ">=", 0.98),
        Bar("bargein_stop_ms_p50", "<=", 200),
        Bar("bargein_stop_ms_p95", "<=", 400),
        Bar("backchannel_selectivity", ">=", 0.95),
        Bar("tic_selectivity", ">=", 0.90),
        Bar("side_talk_selectivity", ">=", 0.85),
        Bar("noise_selectivity", ">=", 0.95),
        Bar("urgency_accuracy_new", ">=", 0.90),
        Bar("undeclared_calls", "<=", 0),
        Bar("role_names_right", ">=", 0.97),
        Bar("reply_slots_right", ">=", 0.97),
        Bar("agent_wer", "<=", 8),
        Bar("dnsmos_drop", "<=", 0.3),
        Bar("silence_said_most", "<=", 1),
        Bar("silence_calls", "<=", 0),
        Bar("turn_gap_ms_p50", "<=", "cascade_turn_gap_ms_p50", 1 / 3),
        Bar("need_to_call_ms_p50", "<=", "cascade_need_to_call_ms_p50", 1 / 3),
        Bar("early_call_share", ">", "cascade_early_call_share"),
        Bar("urgency_accuracy_new", ">", "cascade_urgency_accuracy_new"),
        Bar("cascade_call_args_exact_lead_seen", ">=", -0.02),
        Bar("cascade_call_args_exact_lead_new", ">=", -0.02),
    ),
    "engine": (
        Bar("sessions_max", ">=", 24),
        Bar("sessions_vs_moshi", ">=", 4),
        Bar("sessions_vs_vllm", ">=", 2),
        Bar("temporal_speedup_b1", ">=", 4),
        Bar("temporal_speedup_b16", ">=", 2.5),
        Bar("temporal_error_b1", "<=", 0.01),
        Bar("temporal_error_b16", "<=", 0.01),
        Bar("frame_speedup_b1", ">=", 3),
        Bar("frame_speedup_b16", ">=", 3),
        Bar("mutants_caught", ">=", 1),
        Bar("frame_latency_ms_p50_1", "<=", 20),
        Bar("frame_latency_ms_p99_1", "<=", 40),
        Bar("churn_differ", "<=", 0),
        Bar("churn_slots_leaked", "<=", 0),
        Bar("churn_memory_growth", "<=", 0.02),
        Bar("kills_slots_leaked", "<=", 0),
        Bar("kills_memory_growth", "<=", 0.02),
        Bar("kills_late_more", "<=", 0),
        Bar("takeover_ms_max", "<=", 1000),
        Bar("takeover_frames_lost_max", "<=", 2),
        Bar("takeover_differ", "<=", 0),
        Bar("refused_ms_max", "<=", 50),
        Bar("refusal_p99_change", "<=", 0.05),
        Bar("endless_memory_growth", "<=", 0.02),
        Bar("endless_round_growth", "<=", 0.02),
        Bar("endless_valid_at_end", ">=", 1),
        Bar("endless_real_memory_growth", "<=", 0.02),
        Bar("endless_real_round_growth", "<=", 0.1),  # after pauses two calls of one age differ too
        Bar("endless_real_valid_at_end", ">=", 1),
        Bar("gateway_in_ms_p99_realtime", "<=", 5),
        Bar("gateway_out_ms_p99_realtime", "<=", 5),
        Bar("crowd_served", ">=", 8),
        Bar("crowd_first_refused_ms_max", "<=", 50),
        Bar("crowd_refused_ms_max", "<=", 50),
        Bar("crowd_without_retry", "<=", 0),
        Bar("audio_differ_max", "<=", 0),
        Bar("audio_missing_max", "<=", 0),
        Bar("audio_drift_max", "<=", 0),
        Bar("audio_worst_db_pcm16", ">=", 60),
        Bar("audio_worst_db_law", ">=", 30),
        Bar("hostile_untyped", "<=", 0),
        Bar("hostile_abrupt", "<=", 0),
        Bar("hostile_faults", "<=", 0),
        Bar("hostile_deaf_left", "<=", 0),
        Bar("hostile_sessions_left", "<=", 0),
        Bar("hostile_unanswered", "<=", 0),
        Bar("hostile_late", "<=", 0),
        Bar("hostile_memory_growth", "<=", 0.02),
        Bar("tool_start_ms_p99", "<=", 10),
        Bar("tool_starts_after_off", "<=", 0),
        Bar("audit_sqlite_kills_broken", "<=", 0),
        Bar("audit_sqlite_kills_lost", "<=", 0),
        Bar("audit_postgres_kills_broken", "<=", 0),
        Bar("audit_postgres_kills_lost", "<=", 0),
        Bar("audit_sqlite_append_ms_p99", "<=", 5),
    ),
    "throughput": (
        Bar("parameters_model", "<=", 10_000_000),
        Bar("frames_per_s_model", ">=", 2000),
        Bar("ratio_model", ">=", 0.7),
    ),
}
