-- One row per offer of a provider.
select
    offer_id,
    provider,
    provider_package_id,
    package_id,
    name as offer_name,
    kind as offer_kind,
    allowance,
    data_mb,
    validity_days,
    cost_amount as wholesale_cost,
    cost_currency as wholesale_currency,
    landed_micros as landed_cost_micros,
    min_retail_micros as lowest_retail_micros,
    stock as stock_units,
    is_best_price,
    is_enabled,
    auto_mode as is_auto_mode,
    on_offer as is_on_offer,
    excluded_reason,
    seen_at,
    updated_at
from raw.offers
