"""The thirty laws of editor RL, each with the tests that hold it: a reader finds the proof, and a test that goes missing is noticed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SDE, SCHEDULE, LOSSES = "objectives/test_sde.py", "objectives/test_schedule.py", "objectives/test_losses.py"
ADVANTAGES = "objectives/test_advantages.py"
PARTS, TRAINING, PLAN, PROCESSES = "flow/test_parts.py", "flow/test_training.py", "flow/test_plan.py", "flow/test_processes.py"
ADAPTERS, EXPORT = "editors/test_adapters.py", "editors/test_lora_export.py"

LAWS: dict[str, list[tuple[str, str]]] = {
    "1 the log-density is torch's Normal; CPS has its own convention too": [
        (SDE, "test_log_prob_is_the_mean_normal_log_density"),
        (SDE, "test_the_squared_error_convention_is_minus_the_mean_square"),
    ],
    "2 without noise every kind is diffusers' Euler step, on diffusers' own schedules": [
        (SDE, "test_without_noise_every_kind_is_the_euler_step_of_diffusers"),
        (SCHEDULE, "test_flux_qwen_and_flux2_schedules_equal_the_diffusers_scheduler"),
    ],
    "3 both forms of the Flow-SDE mean agree, the first step is finite, d mean / d v is constant": [
        (SDE, "test_both_algebraic_forms_of_the_flow_sde_mean_agree"),
        (SDE, "test_the_first_flow_sde_step_takes_the_second_sigma_and_is_finite"),
        (SDE, "test_the_gradient_of_the_mean_is_the_velocity_weight"),
    ],
    "4 Gaussian flows and point masses have their exact spread": [
        (SDE, "test_spread_of_a_gaussian_flow_has_its_known_value"),
        (SDE, "test_monte_carlo_agrees_with_the_exact_recursion"),
        (SDE, "test_coefficient_keeping_samplers_leave_no_grain"),
        (SDE, "test_flow_sde_over_disperses_by_the_documented_factor"),
    ],
    "5 a replay is bitwise, in every storage dtype; a late cast is noticed": [
        (SDE, "test_replaying_a_stored_step_gives_the_same_log_prob_bit_for_bit"),
        (SDE, "test_rounding_after_the_log_prob_would_be_noticed"),
    ],
    "6 the KL conventions are what their names say": [
        (LOSSES, "test_latent_true_is_the_gaussian_kl_per_element_and_dtfree_is_it_times_dt"),
        (LOSSES, "test_kl_weights_of_kontext_have_their_known_values"),
        (LOSSES, "test_kl_is_zero_for_equal_policies_and_its_gradient_reaches_only_the_policy"),
    ],
    "7 GRPO-Guard is centred and blind to the step's size": [
        (LOSSES, "test_guard_has_expectation_zero_under_the_old_policy_and_the_plain_ratio_does_not"),
        (LOSSES, "test_guard_does_not_depend_on_the_step_size_given_noise_and_shift"),
    ],
    "8 the clipped surrogate": [
        (LOSSES, "test_at_ratio_one_the_gradient_is_the_plain_policy_gradient"),
        (LOSSES, "test_the_clip_stops_only_moves_that_went_far_enough"),
        (LOSSES, "test_an_asymmetric_clip_uses_each_side"),
    ],
    "9 the window is pure, shared, never the last step": [
        (ADVANTAGES, "test_the_random_window_is_pure_stays_inside_and_covers_its_range"),
        (ADVANTAGES, "test_the_progressive_window_moves_on_and_returns"),
        (ADVANTAGES, "test_a_window_with_the_last_step_is_refused"),
    ],
    "10 the sampler of tasks": [
        (PARTS, "test_every_iteration_has_whole_groups_without_repeats_however_many_processes"),
        (PARTS, "test_sizes_that_do_not_divide_are_refused"),
    ],
    "11 the same words on another picture are another group": [
        (PARTS, "test_held_out_tasks_share_no_picture_with_training_and_equal_words_stay_two_tasks"),
    ],
    "12 advantages": [
        (ADVANTAGES, "test_advantages_equal_the_hand_table"),
        (ADVANTAGES, "test_group_mean_is_zero_and_order_does_not_matter"),
        (ADVANTAGES, "test_group_std_is_blind_to_affine_maps_of_the_reward"),
        (ADVANTAGES, "test_an_unscored_sample_gets_zero_and_changes_no_one_else"),
        (ADVANTAGES, "test_groups_that_teach_nothing_get_zero_and_change_no_one_else"),
        (TRAINING, "test_without_advantages_no_weight_moves"),
    ],
    "13 advantages do not depend on the number of processes": [(PROCESSES, "test_two_processes_give_the_update_of_one")],
    "14 the gradient depends neither on micro-batches nor on processes": [
        (TRAINING, "test_micro_batches_and_batch_splits_give_the_same_update"),
        (PROCESSES, "test_two_processes_give_the_update_of_one"),
    ],
    "15 our loop without noise is the pipeline's": [
        (ADAPTERS, "test_our_loop_without_noise_gives_the_latents_of_the_pipeline"),
        (ADAPTERS, "test_models_that_see_the_source_as_clean_agree_with_their_pipeline"),
        (ADAPTERS, "test_several_source_pictures_give_the_latents_of_the_pipeline"),
    ],
    "16 the velocity sees source, words and guidance, and no neighbour": [
        (ADAPTERS, "test_the_velocity_depends_on_source_words_and_level"),
        (ADAPTERS, "test_guidance_needs_a_negative_that_differs"),
        (ADAPTERS, "test_a_batch_of_two_equals_two_batches_of_one"),
        (ADAPTERS, "test_samples_with_several_pictures_share_a_batch"),
    ],
    "17 encoding once and expanding is encoding every copy": [
        (ADAPTERS, "test_encoding_once_and_expanding_equals_encoding_every_copy"),
        ("flow/test_encodings.py", "test_kept_encodings_are_those_of_the_editor_and_are_made_once"),
    ],
    "18 LoRA: off is the base, fresh is the reference, the base learns nothing": [
        (PARTS, "test_lora_starts_as_the_base_learns_alone_and_can_be_switched_off"),
        (TRAINING, "test_a_fresh_lora_is_the_reference"),
        (EXPORT, "test_every_lora_target_exists_and_learns_alone"),
    ],
    "19 decode inverts encode and is the pipeline's": [
        (ADAPTERS, "test_an_encoded_source_decodes_to_a_picture_of_its_size"),
        (ADAPTERS, "test_decoded_pictures_are_those_of_the_pipeline"),
    ],
    "20 the first ratio is 1, a second update's is not": [
        (TRAINING, "test_the_first_replay_reproduces_the_rollout_and_a_second_update_does_not"),
        (TRAINING, "test_a_replay_that_computes_something_else_stops_the_run"),
    ],
    "21 the reward rises; a huge beta holds; no advantage, no step": [
        (TRAINING, "test_the_reward_rises"),
        (TRAINING, "test_a_huge_beta_keeps_the_policy_where_it_was"),
        (TRAINING, "test_without_advantages_no_weight_moves"),
    ],
    "22 a resumed run is the uninterrupted one": [(TRAINING, "test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit")],
    "23 swapped weights come back": [
        (PARTS, "test_swapped_weights_come_back_even_after_an_error"),
        (TRAINING, "test_evaluation_uses_the_averaged_weights_and_restores_the_trained_ones"),
    ],
    "24 the exported LoRA gives the same latents in the plain pipeline": [
        (EXPORT, "test_the_exported_lora_gives_the_same_latents_in_the_plain_pipeline"),
    ],
    "25 a judge that is slow, broken, late, wrong or silent": [
        ("vlm/test_openai_api.py", "test_under_thirty_percent_faults_every_request_is_answered_once_and_in_order"),
        ("vlm/test_openai_api.py", "test_replies_keep_the_order_of_the_requests_when_they_come_back_out_of_order"),
        ("vlm/test_openai_api.py", "test_what_stays_broken_stops_the_run_with_the_reason"),
        (PARTS, "test_a_judge_that_fails_or_answers_for_another_number_stops_the_run"),
        (PARTS, "test_unscored_edits_are_nan_and_never_a_number"),
        (TRAINING, "test_too_many_unscored_edits_stop_the_run_and_few_do_not"),
        ("test_security.py", "test_no_module_runs_what_it_reads"),
    ],
    "26 rewards are asked for before the next group is sampled": [
        (PARTS, "test_rewards_are_asked_for_before_the_next_batch_is_sampled_and_keep_their_order"),
    ],
    "27 a trajectory holds its window and nothing else": [(PARTS, "test_a_trajectory_holds_the_window_and_nothing_else")],
    "28 settings: unknown keys are refused, printed figures are the hand values": [
        (PLAN, "test_a_misspelt_key_is_refused"),
        (PLAN, "test_kontext_at_512_pixels_has_its_known_sizes"),
        (PLAN, "test_klein_and_qwen_have_their_hand_values"),
        (PLAN, "test_kl_conversions_are_those_of_the_window"),
    ],
    "29 formulas and figures of the docs are computed anew": [
        ("flow/test_collapse_page.py", "test_the_table_of_samplers"),
        ("flow/test_collapse_page.py", "test_the_table_of_kl_conventions"),
    ],
    "30 no library code touches a global generator": [(TRAINING, "test_library_code_touches_no_global_generator")],
}


def test_there_are_thirty() -> None:
    assert [int(law.partition(" ")[0]) for law in LAWS] == list(range(1, 31))


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_tests_that_exist(law: str) -> None:
    assert LAWS[law]
    for file, name in LAWS[law]:
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
